"""API keys as they are kept: one JSON object a line, which has the hash of the key and never the key.

    {"name": "anna", "scope": "write", "sha256": "9f86d0…", "created": "2026-11-28T09:00:00Z",
     "until": "2027-02-28T00:00:00Z"}

A key is 32 random bytes from the operating system. Nobody can guess or list these, so one round of SHA-256 without a
salt is the right hash: slow and salted ones are for passwords, which people choose. NIST SP 800-63B, section 5.1.2.2,
says so of look-up secrets: those of 112 bits of entropy and more are hashed with an approved one-way function; salt and
a slow hash are asked for below that.
"""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from clip_retrieval.access.caller import Scope
from clip_retrieval.contract.base import describe
from clip_retrieval.errors import KeysError

PREFIX = "bc_"
"""The beginning of every key, by which people and scanners of repositories know what it is."""
SECRET_BYTES = 32
MAX_SECRET = 200
"""Characters of a key that is looked at; ours have 46."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names stand in logs, so that they have no space and nothing that a terminal would obey."""


class ApiKey(BaseModel):
    """One key: its name, its hash, what it allows and until when."""

    model_config = ConfigDict(frozen=True, extra="forbid")  # an unknown field may be a restriction

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    scope: Scope
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    created: AwareDatetime
    until: AwareDatetime | None = None
    """The first moment at which it is no longer accepted; None is never."""

    def has_ended(self, now: datetime) -> bool:
        return self.until is not None and now >= self.until


def new_key(name: str, scope: Scope, until: datetime | None = None) -> tuple[str, ApiKey]:
    """A new secret, which is kept nowhere, and the key that it opens. Raises KeysError for a name that is no good."""
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    try:
        return secret, ApiKey(
            name=name,
            scope=scope,
            sha256=hash_of(secret),
            created=datetime.now(UTC).replace(microsecond=0),
            until=until,
        )
    except ValidationError as error:
        raise KeysError(
            f"{name!r} is no name of a key: it has 1 to 64 letters, digits, dots, dashes or underscores, "
            "and begins with a letter or digit"
        ) from error


def hash_of(secret: str) -> str:
    """The SHA-256 of a secret, in hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def lines_of(keys: tuple[ApiKey, ...]) -> str:
    """The keys in the form of the file, one a line."""
    return "".join(f"{key.model_dump_json(exclude_none=True)}\n" for key in keys)


def keys_of(text: str, where: str) -> tuple[ApiKey, ...]:
    """The keys of a text of such lines; ``where`` names it in an error. Empty lines are passed over.

    Raises KeysError for a line that is no key, and for a name or a hash that comes twice.
    """
    keys: list[ApiKey] = []
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            key = ApiKey.model_validate_json(line)
        except ValidationError as error:
            raise KeysError(
                f"{where}, line {number}, is not an API key as bento-clip keys new writes it: "
                f"{describe(error.errors(include_input=False))}"
            ) from error
        for what, value, seen in (("name", key.name, names), ("hash", key.sha256, hashes)):
            if value in seen:
                raise KeysError(f"{where}, line {number}, has the {what} of line {seen[value]}; remove one of them")
            seen[value] = number
        keys.append(key)
    return tuple(keys)
