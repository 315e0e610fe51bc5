"""Lets in what the table of routes allows: the right kind of body, of bounded size, in bounded company and time."""

import asyncio
from http import HTTPStatus

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.errors import Busy
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.body_limit import BodyTooLarge, LimitedBody
from clip_retrieval.http.policy import JSON, RoutePolicy, methods_of
from clip_retrieval.serving.traffic import Traffic

PREFLIGHT = RoutePolicy(always_answers=True)
"""A browser asks whether another origin may send a request. BentoML's CORS option answers; without it that is 405."""

FOREIGN = (
    "a page of another origin may not change anything here; behind a proxy, have it pass on the Host header "
    "that the browser sent"
)


class Admission:
    """Answers 404 and 405 for what has no row in the table, 415 for another kind of body than the route reads, 403 for
    a change that the page of another site asks for, 413 for what is too large, 503 for what is too much, and 504 for
    what takes too long.

    ``max_body_bytes`` bounds every body; a row of the table may bound its own further.
    """

    def __init__(self, app: ASGIApp, *, traffic: Traffic, max_body_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._traffic = traffic
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if isinstance(policy := _policy(scope), JSONResponse):
            await policy(scope, receive, send)
        elif policy.always_answers:
            await self._app(scope, receive, send)
        else:
            await self._admit(policy, scope, receive, send)

    async def _admit(self, policy: RoutePolicy, scope: Scope, receive: Receive, send: Send) -> None:
        brings_image = policy.cost == "image"
        try:
            self._traffic.enter(brings_image=brings_image)
        except Busy as error:
            await error_response(HTTPStatus.SERVICE_UNAVAILABLE, str(error))(scope, receive, send)
            return
        try:
            await self._bounded(policy, scope, receive, send)
        finally:
            self._traffic.leave(brings_image=brings_image)

    async def _bounded(self, policy: RoutePolicy, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._max_body_bytes if policy.max_body is None else min(policy.max_body, self._max_body_bytes)
        body = LimitedBody(receive, send, limit)
        declared = _header(scope, b"content-length")
        body.is_too_large = declared.isdigit() and int(declared) > limit
        try:
            if not body.is_too_large:
                async with asyncio.timeout(self._timeout_s):
                    await self._app(scope, body.receive, body.send)
        except TimeoutError:
            self._traffic.reject("too_slow")
            if body.is_answered:
                raise
            detail = f"there was no answer within {self._timeout_s:g} seconds"
            await error_response(HTTPStatus.GATEWAY_TIMEOUT, detail)(scope, receive, send)
        except BodyTooLarge:
            pass
        if body.is_too_large:
            self._traffic.reject("too_large")
            if not body.is_answered:
                await body.drain()
                detail = f"the body is over the limit of {limit} bytes"
                response = error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, {"Connection": "close"})
                await response(scope, receive, send)


def _policy(scope: Scope) -> RoutePolicy | JSONResponse:
    """The row of a request, or the answer to one that has none or that brings the wrong kind of body."""
    methods = methods_of(scope["path"])
    if methods is None:
        return error_response(HTTPStatus.NOT_FOUND)
    policy = methods.get(scope["method"])
    if policy is None and scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method"):
        return PREFLIGHT
    if policy is None:
        return error_response(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(methods)})
    if policy.media_type is not None:
        given = _header(scope, b"content-type").decode("latin-1")
        if given.partition(";")[0].strip().lower() != policy.media_type:
            detail = f"this path reads {policy.media_type}; the Content-Type is {given or 'missing'}"
            return error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    if policy.needs != "nothing" and scope["method"] == "POST" and policy.media_type != JSON and _is_foreign(scope):
        return error_response(HTTPStatus.FORBIDDEN, FOREIGN)
    return policy


def _is_foreign(scope: Scope) -> bool:
    """Whether the page of another site sends this. A form of any site may be posted here, as the visitor's own.

    A browser says where the page is from: in Sec-Fetch-Site, which no page can set, over HTTPS and on the same machine,
    otherwise in Origin. Other programs say neither. Other methods and media types need the leave of CORS.
    """
    if site := _header(scope, b"sec-fetch-site"):
        return site not in {b"same-origin", b"none"}
    origin = _header(scope, b"origin")
    return bool(origin) and origin.partition(b"://")[2] != _header(scope, b"host")


def _header(scope: Scope, name: bytes) -> bytes:
    """The last header of this name, which is in lower case; empty if there is none."""
    return next((value for key, value in reversed(scope["headers"]) if key == name), b"")
