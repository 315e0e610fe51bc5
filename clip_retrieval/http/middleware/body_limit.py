"""A request body that is counted while it is read, and refused once it is too large."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.request_context import RequestContext, header
from clip_retrieval.serving.traffic import Traffic

DRAIN_BYTES = 64 * 2**20
"""How much of a body that is too large is read and dropped, so that the client gets to see the answer."""


class BodyTooLarge(Exception):
    """Raised into the reader of a body that is over its limit."""


class LimitedBody:
    """Wraps ``receive`` and ``send`` of one request.

    Frameworks swallow an exception of the body's reader and answer something else, so nothing is sent any more once
    the body is too large: the answer is up to the owner of this object.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._read = 0
        self._is_complete = False
        self.is_too_large = False
        self.is_answered = False
        """Whether an answer has begun."""

    async def receive(self) -> Message:
        """The next message. Raises BodyTooLarge."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._read > self._limit:
            self.is_too_large = True
            raise BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        if not self.is_too_large:
            self.is_answered = True
            await self._send(message)

    async def drain(self) -> None:
        """Read and drop the rest of the body, or as much of it as a client may be expected to send in vain."""
        left = DRAIN_BYTES - self._read
        while not self._is_complete and left > 0:
            message = await self._receive()
            if message["type"] != "http.request":
                return
            left -= len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)


class BodyLimit:
    """Answers 413 for a body over ``max_body_bytes``, or over what the row of its route allows, if that is less."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, max_body_bytes: int) -> None:
        self._app = app
        self._traffic = traffic
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        if context is None or context.policy.always_answers:
            await self._app(scope, receive, send)
            return
        own = context.policy.max_body
        limit = self._max_body_bytes if own is None else min(own, self._max_body_bytes)
        body = LimitedBody(receive, send, limit)
        declared = header(scope, b"content-length")
        body.is_too_large = declared.isdigit() and int(declared) > limit
        try:
            if not body.is_too_large:
                await self._app(scope, body.receive, body.send)
        except BodyTooLarge:
            pass
        if body.is_too_large:
            self._traffic.reject("too_large")
            if not body.is_answered:
                await body.drain()
                detail = f"the body is over the limit of {limit} bytes"
                response = error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, {"Connection": "close"})
                await response(scope, receive, send)
