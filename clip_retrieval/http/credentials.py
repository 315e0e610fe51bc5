"""The API key that a request brings, and the challenge of an answer that asks for one (RFC 6750)."""

from starlette.types import Scope

from clip_retrieval.access.gate import Refused

_HEADERS = frozenset({b"x-api-key", b"authorization"})
REALM = 'Bearer realm="bento-clip"'


class TwoKeys(Exception):
    """A request brings two different keys; it does not say which one counts."""


def key_of(scope: Scope) -> str | None:
    """The key in ``Authorization: Bearer`` or ``X-API-Key``; None without one. Raises TwoKeys.

    Other schemes of Authorization are not ours: a proxy in front may ask for a password.
    """
    given = [one for one in scope["headers"] if one[0] in _HEADERS]
    if not given:
        return None
    found = {_key_in(name, value) for name, value in given} - {b""}
    if len(found) > 1:
        raise TwoKeys
    return found.pop().decode("latin-1") if found else None


def _key_in(name: bytes, value: bytes) -> bytes:
    """The key in a header; empty if there is none."""
    if name == b"x-api-key":
        return value.strip()
    scheme, _, rest = value.strip().partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else b""


def challenge(refused: Refused) -> str:
    """The ``WWW-Authenticate`` of a refusal: without a code where no key came (RFC 6750, section 3.1)."""
    if refused.why == "unknown":
        return f'{REALM}, error="invalid_token"'
    if refused.why == "too little":
        return f'{REALM}, error="insufficient_scope", scope="{refused.needed}"'
    return REALM
