"""An id for each request: in its answer, in its line of the log, and in the line of each error that it meets."""

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.request_context import REQUEST_ID, header
from clip_retrieval.serving.request_id import CURRENT

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""What is taken over from a client or a proxy: short, and nothing that a log or a terminal would read as more."""


def new_id() -> str:
    return os.urandom(16).hex()


class RequestIds:
    """Takes over the ``X-Request-Id`` that comes with a request if it is sane, and otherwise makes one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, HEADER)
        request_id = given.decode("ascii") if _SANE.fullmatch(given) else new_id()
        shown = (HEADER, request_id.encode("ascii"))
        scope[REQUEST_ID] = request_id
        CURRENT.set(request_id)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [one for one in message.get("headers", ()) if one[0].lower() != HEADER]
                message = {**message, "headers": [*kept, shown]}
            await send(message)

        await self._app(scope, receive, named)
