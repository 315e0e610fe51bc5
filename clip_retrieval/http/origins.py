"""Which pages of other origins may use the API in a browser, and the headers that say so.

CORS as the Fetch standard has it (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from collections.abc import Iterable, Sequence

from starlette.types import Scope

from clip_retrieval.http.request_context import header

ALL = "*"

READ_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Min-Sequence",
    "Range",
    "X-API-Key",
    "X-Request-Id",
)
"""The headers of a request that something here reads and that a page may set."""

SHOWN_HEADERS = (
    "Accept-Ranges",
    "Allow",
    "Collection-Sequence",
    "Collection-Version",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Request-Id",
)
"""The headers of an answer that a page may read beside those that every page may."""

PREFLIGHT_S = 600
"""For so long a browser need not ask again whether it may send a request of the same kind."""

_KEYS = (b"authorization", b"x-api-key")


class Origins:
    """The origins whose pages may use the API: those named, or all of them by ``*``."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = frozenset(name.lower() for name in names)

    @property
    def none(self) -> bool:
        """Whether pages of other origins may do nothing."""
        return not self._names

    def allow(self, origin: str) -> bool:
        """Whether a page of this origin, as the Origin header has it, may send requests and read the answers."""
        return bool(origin) and (ALL in self._names or origin.lower() in self._names)

    def may_change(self, scope: Scope) -> bool:
        """Whether a page of another origin may ask for the change that a request asks for.

        One that is named may. If all are allowed, only a request with a key may: a form cannot bring one, so the
        visitor's browser has asked first, and the key is the page's own.
        """
        origin = header(scope, b"origin").decode("latin-1").lower()
        return origin in self._names or (self.allow(origin) and any(header(scope, name) for name in _KEYS))

    def headers(self, origin: str) -> dict[str, str]:
        """What the answer to a request from this origin says of CORS. Credentials go with a named origin alone."""
        if self.none:
            return {}
        by_name = origin.lower() in self._names
        vary = {} if self._names == {ALL} else {"Vary": "Origin"}
        if not self.allow(origin):
            return vary
        allowed = origin if by_name else ALL
        shown = {
            "Access-Control-Allow-Origin": allowed,
            "Access-Control-Expose-Headers": ", ".join(SHOWN_HEADERS),
            "Timing-Allow-Origin": allowed,
        }
        return {**vary, **shown, **({"Access-Control-Allow-Credentials": "true"} if by_name else {})}


NO_ORIGINS = Origins()


def preflight_headers(methods: Iterable[str]) -> dict[str, str]:
    """What the answer to a preflight says beside ``Origins.headers``: what may be sent to a path with these methods."""
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": ", ".join(READ_HEADERS),
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
