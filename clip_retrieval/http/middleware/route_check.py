"""Lets in what has a row in the table of routes and brings the kind of body that the row reads."""

from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.access.addresses import counted_as
from clip_retrieval.access.caller import Caller
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.origins import NO_ORIGINS, Origins
from clip_retrieval.http.policy import JSON, RoutePolicy, methods_of
from clip_retrieval.http.request_context import RequestContext, header

FOREIGN = (
    "a page of another origin may not change anything here; behind a proxy, have it pass on the Host header "
    "that the browser sent, or name the origin in BENTO_CLIP_CORS_ORIGINS"
)


class RouteCheck:
    """Answers 404 and 405 for what has no row in the table, 415 for another kind of body than the route reads, and 403
    for a change that the page of another site asks for. What it lets in has a ``RequestContext``.
    """

    def __init__(self, app: ASGIApp, *, origins: Origins = NO_ORIGINS) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            policy = _policy(scope, self._origins)
            if isinstance(policy, JSONResponse):
                await policy(scope, receive, send)
                return
            host = (scope.get("client") or ("", 0))[0]
            RequestContext(policy, Caller(counted_as(host))).put(scope)
        await self._app(scope, receive, send)


def _policy(scope: Scope, origins: Origins) -> RoutePolicy | JSONResponse:
    """The row of a request, or the answer to one that has none or that brings the wrong kind of body."""
    methods = methods_of(scope["path"])
    if methods is None:
        return error_response(HTTPStatus.NOT_FOUND)
    policy = methods.get(scope["method"])
    if policy is None:
        return error_response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(methods)})
    if policy.media_type is not None:
        given = header(scope, b"content-type").decode("latin-1")
        if given.partition(";")[0].strip().lower() != policy.media_type:
            detail = f"this path reads {policy.media_type}; the Content-Type is {given or 'missing'}"
            return error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    changes = policy.needs in {"write", "admin"}
    is_form = scope["method"] == "POST" and policy.media_type != JSON
    if changes and is_form and _is_foreign(scope) and not origins.may_change(scope):
        return error_response(HTTPStatus.FORBIDDEN, FOREIGN)
    return policy


def _is_foreign(scope: Scope) -> bool:
    """Whether the page of another site sends this. A form of any site may be posted here, as the visitor's own.

    A browser says where the page is from: in Sec-Fetch-Site, which no page can set, over HTTPS and on the same machine,
    otherwise in Origin. Other programs say neither. Other methods and media types need the leave of CORS.
    """
    if site := header(scope, b"sec-fetch-site"):
        return site not in {b"same-origin", b"none"}
    origin = header(scope, b"origin")
    return bool(origin) and origin.partition(b"://")[2] != header(scope, b"host")
