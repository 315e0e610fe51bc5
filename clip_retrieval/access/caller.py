"""The one who sent a request, and what they may do."""

from dataclasses import dataclass
from typing import Literal, get_args

from clip_retrieval.access.addresses import counted_as

Scope = Literal["search", "write", "admin"]
"""What a key allows: to read and search, to change the collection, to change how it is served. Each includes those
before it."""

SCOPES: tuple[Scope, ...] = get_args(Scope)


def includes(given: Scope | None, needed: Scope) -> bool:
    """Whether who may do ``given`` may do ``needed``; None is allowed nothing."""
    return given is not None and SCOPES.index(given) >= SCOPES.index(needed)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as far as it can be known."""

    address: str
    """The address of the client; behind a trusted proxy the one that the proxy names."""
    key: str | None = None
    """The name of the API key that came with the request; None where no key came or none is needed."""
    scope: Scope | None = None
    """What they may do; None until that is known, and for one who may only use what is open to all."""

    @property
    def name(self) -> str:
        """Whom a limit counts for and a log line names: the key, or else the address, of IPv6 its first 64 bits."""
        return counted_as(self.address) if self.key is None else f"key:{self.key}"


NOBODY = Caller("")
"""The caller of a request whose sender is not known yet."""
