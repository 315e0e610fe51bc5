"""Lets in what has a row in the table of routes and brings the kind of body that the row reads."""

import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.access.caller import Caller
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.known_names import check_parameters
from clip_retrieval.http.origins import NO_ORIGINS, Origins
from clip_retrieval.http.policy import JSON, RoutePolicy, methods_of
from clip_retrieval.http.request_context import RequestContext, header

FOREIGN = (
    "a page of another origin may not change anything here; behind a proxy, have it pass on the Host header "
    "that the browser sent, or name the origin in BENTO_CLIP_CORS_ORIGINS"
)


NOT_ASCII = "the Content-Type has a character that is not of ASCII; in a form the boundary may have one"

NOT_UTF8 = "the URL has percent-encoded bytes that are not UTF-8; encode its characters in UTF-8, such as %C3%BC for ü"

_NOT_TEXT = re.compile(rb"[^\t\x20-\x7e]")


class RouteCheck:
    """Answers 404 and 405 for what has no row in the table, 400 for a URL that is not UTF-8, 415 for another kind of
    body than the route reads, 422 for a query parameter that it does not read, and 403 for a change that the page of
    another site asks for. What it lets in has a ``RequestContext``, and HEAD has become GET.
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
            RequestContext(policy, Caller(host)).put(scope)
            if scope["method"] == "HEAD":  # the server sends the answer to GET without its body
                # A range is one of GET alone (RFC 9110, section 14.2).
                headers = [one for one in scope["headers"] if one[0] != b"range"]
                scope = {**scope, "method": "GET", "headers": headers}
        await self._app(scope, receive, send)


def _policy(scope: Scope, origins: Origins) -> RoutePolicy | JSONResponse:
    """The row of a request, or the answer to one that has none or that brings the wrong kind of body."""
    methods = methods_of(scope["path"])
    if methods is None:
        return error_response(HTTPStatus.NOT_FOUND)
    policy = methods.get(scope["method"])
    if policy is None:
        return error_response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(methods)})
    return _refusal(scope, policy, origins) or policy


def _refusal(scope: Scope, policy: RoutePolicy, origins: Origins) -> JSONResponse | None:
    """The answer to a request that its route does not take as it is; None if it does."""
    url = scope.get("raw_path") or b""
    if policy.query is not None:
        url += b"?" + scope["query_string"]
    if not _is_utf8(url):
        return error_response(HTTPStatus.BAD_REQUEST, NOT_UTF8)
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(types) > 1 or any(_NOT_TEXT.search(value) for value in types):
        detail = "there are several Content-Type headers; send one"
        return error_response(HTTPStatus.BAD_REQUEST, detail if len(types) > 1 else NOT_ASCII)
    if policy.media_type is not None:
        given = types[0].decode("latin-1") if types else ""
        if given.partition(";")[0].strip().lower() != policy.media_type:
            detail = f"this path reads {policy.media_type}; the Content-Type is {given or 'missing'}"
            return error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    if scope["query_string"] and policy.query is not None:
        try:
            check_parameters(scope["query_string"], policy.query)
        except ValueError as error:
            return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    changes = policy.needs in {"write", "admin"}
    is_form = scope["method"] == "POST" and policy.media_type != JSON
    if changes and is_form and _is_foreign(scope) and not origins.may_change(scope):
        return error_response(HTTPStatus.FORBIDDEN, FOREIGN)
    return None


def _is_utf8(url: bytes) -> bool:
    """Whether a URL means one text: the server takes all that is not UTF-8 for the same character."""
    if b"%" not in url:
        return True
    try:
        unquote_to_bytes(url).decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_foreign(scope: Scope) -> bool:
    """Whether the page of another site sends this. A form of any site may be posted here, as the visitor's own.

    A browser says where the page is from: in Sec-Fetch-Site, which no page can set, over HTTPS and on the same machine,
    otherwise in Origin. Other programs say neither. Other methods and media types need the leave of CORS.
    """
    if site := header(scope, b"sec-fetch-site"):
        return site not in {b"same-origin", b"none"}
    origin = header(scope, b"origin")
    return bool(origin) and origin.partition(b"://")[2] != header(scope, b"host")
