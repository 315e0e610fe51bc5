"""Lets in as many requests at once as there are places, and bounds their time."""

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.errors import Busy, LimitReached
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.request_context import RequestContext
from clip_retrieval.serving.traffic import Traffic


class Admission:
    """Answers 503 for what is too much, 429 if it is one caller's, and 504 for what takes too long."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, timeout_s: float) -> None:
        self._app = app
        self._traffic = traffic
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        if context is None or context.policy.always_answers:
            await self._app(scope, receive, send)
            return
        brings_image, caller = context.policy.cost == "image", context.caller.name
        try:
            self._traffic.enter(brings_image=brings_image, caller=caller)
        except Busy as error:
            await self._traffic.pace.hold()
            await error_response(HTTPStatus.SERVICE_UNAVAILABLE, str(error))(scope, receive, send)
            return
        except LimitReached as error:
            await self._traffic.pace.hold()
            refusal = error_response(HTTPStatus.TOO_MANY_REQUESTS, str(error), {"retry-after": "1"})
            await refusal(scope, receive, send)
            return
        try:
            await self._in_time(scope, receive, send)
        finally:
            self._traffic.leave(brings_image=brings_image, caller=caller)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_answered = False

        async def noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_s):
                await self._app(scope, receive, noted)
        except TimeoutError:
            self._traffic.reject("too_slow")
            if is_answered:
                raise
            detail = f"there was no answer within {self._timeout_s:g} seconds"
            await error_response(HTTPStatus.GATEWAY_TIMEOUT, detail)(scope, receive, send)
