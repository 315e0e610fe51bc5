"""A request's body is taken in whole before anything inside begins: no place is taken and no clock runs before."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.content_encoding import READ, unpacker_of
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.intake import BodyRefused, ClientLeft, Intake, too_large
from clip_retrieval.http.request_context import RequestContext, header, whole_list
from clip_retrieval.serving.traffic import Traffic

WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose body, if there is one, nobody reads."""


class BodyLimit:
    """Hands a complete body on, unpacked, in one message.

    Answers 413 for a body over ``max_body_bytes``, or over what the row of its route allows, if that is less; 415 for
    a Content-Encoding that is not read; and what ``Intake`` says of bodies that do not come as they should.
    """

    def __init__(self, app: ASGIApp, *, traffic: Traffic, intake: Intake, max_body_bytes: int) -> None:
        self._app = app
        self._traffic = traffic
        self._intake = intake
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        if context is None or scope["method"] in WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        own = context.policy.max_body
        limit = self._max_body_bytes if own is None else min(own, self._max_body_bytes)
        try:
            unpacker = unpacker_of(whole_list(scope, b"content-encoding"))
        except ValueError as error:
            accepted = {"Accept-Encoding": ", ".join(READ)}  # RFC 9110, section 15.5.16
            await error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error), accepted)(scope, receive, send)
            return
        try:
            declared = header(scope, b"content-length")
            if declared.isdigit() and int(declared) > limit:
                raise too_large(limit)
            body = await self._intake.take(receive, limit, unpacker)
        except ClientLeft:
            return
        except BodyRefused as refused:
            if refused.counted is not None:
                self._traffic.reject(refused.counted)
            dropped = refused.status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.SERVICE_UNAVAILABLE}
            closing = {"Connection": "close"} if dropped else None  # the rest of the body may never come
            await error_response(refused.status, str(refused), closing)(scope, receive, send)
            return
        size = len(body)
        received = _Complete(body, receive)
        del body  # what has been parsed need not be held twice
        await self._app(_unpacked(scope, size) if unpacker else scope, received, send)


class _Complete:
    """``receive`` of a request whose body is complete."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        """The body; after it what comes from the client, which can only be that it leaves."""
        if self._body is None:
            return await self._receive()
        message = {"type": "http.request", "body": self._body, "more_body": False}
        self._body = None
        return message


def _unpacked(scope: Scope, size: int) -> Scope:
    """The scope as if the body had been sent unpacked."""
    packed = {b"content-encoding", b"content-length", b"transfer-encoding"}
    headers = [(name, value) for name, value in scope["headers"] if name not in packed]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % size)]}
