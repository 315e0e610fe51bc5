"""The memory that the body of a request takes, from the first byte of it to the answer."""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.errors import Busy, TooCostly
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.policy import JSON
from clip_retrieval.http.request_context import RequestContext
from clip_retrieval.http.statuses import status_of
from clip_retrieval.serving.budget import FORM_COPIES, JSON_COPIES, Share
from clip_retrieval.serving.traffic import Traffic

DRAIN_BYTES, DRAIN_S = 64 * 2**20, 2.0
"""How much of a refused body is read and dropped, and how long, so that the client gets to see the answer."""


class _Refused(Exception):
    """Raised into the reader of a body that there is no memory for."""


class BodyMemory:
    """Answers 503 when there is no memory for a body, and 413 when there never will be.

    Memory is taken for what has arrived: a client that announces much and sends nothing holds nothing.
    """

    def __init__(self, app: ASGIApp, *, memory: Share, traffic: Traffic) -> None:
        self._app, self._memory, self._traffic = app, memory, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        if context is None or context.policy.media_type is None:
            await self._app(scope, receive, send)
            return
        copies = JSON_COPIES if context.policy.media_type == JSON else FORM_COPIES
        held = 0
        refused: Busy | TooCostly | None = None
        is_answered = False
        more = True

        async def counted() -> Message:
            nonlocal held, refused, more
            message = await receive()
            more = bool(message.get("more_body", False))
            size = copies * len(message.get("body", b""))
            try:
                if not self._memory.fits_ever(held + size):
                    self._memory.take_now(held + size)
                self._memory.take_now(size)
            except (Busy, TooCostly) as error:
                refused = error
                raise _Refused from None
            held += size
            return message

        async def guarded(message: Message) -> None:
            # Frameworks swallow an exception of the body's reader and answer something else.
            nonlocal is_answered
            if refused is None:
                is_answered = True
                await send(message)

        try:
            with suppress(_Refused):
                await self._app(scope, counted, guarded)
        finally:
            self._memory.give(held)
        if refused is not None and not is_answered:
            self._traffic.reject("too_many" if isinstance(refused, Busy) else "too_large")
            if more:
                await _drain(receive)
            await error_response(status_of(refused), str(refused), {"Connection": "close"})(scope, receive, send)


async def _drain(receive: Receive) -> None:
    left = DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
