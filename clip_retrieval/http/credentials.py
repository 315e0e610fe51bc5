"""The API key that a request brings, and the challenge of an answer that asks for one (RFC 6750)."""

from starlette.types import Scope

from clip_retrieval.access.gate import Refused

REALM = 'Bearer realm="bento-clip"'


class TwoKeys(Exception):
    """A request brings two different keys; it does not say which one counts."""


def key_of(scope: Scope) -> str | None:
    """The key in ``Authorization: Bearer`` or ``X-API-Key``; None without one. Raises TwoKeys.

    Other schemes of Authorization are not ours: a proxy in front may ask for a password.
    """
    found: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.add(rest.strip())
    found.discard(b"")
    if len(found) > 1:
        raise TwoKeys
    return found.pop().decode("latin-1") if found else None


def challenge(refused: Refused) -> str:
    """The ``WWW-Authenticate`` of a refusal: without a code where no key came (RFC 6750, section 3.1)."""
    if refused.why == "unknown":
        return f'{REALM}, error="invalid_token"'
    if refused.why == "too little":
        return f'{REALM}, error="insufficient_scope", scope="{refused.needed}"'
    return REALM
