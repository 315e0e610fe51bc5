"""Ends the work for a client that closed its connection."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_CLOSED_REQUEST = 499


class CancelOnDisconnect:
    """Cancels the work for a client that closed its connection before it had its answer.

    The answer is then 499, nginx's number for this. Nobody reads it, but BentoML's time limit, the log and the metrics
    wait for an answer: without one the request would count as in progress, and delay a stop, until the limit is over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        watcher: asyncio.Task[None] | None = None
        gone = started = is_answered = False

        def leave() -> None:
            """After a whole answer the server says that the client has left, which ends nothing: work after it, such as
            closing the file of an upload, must be done."""
            nonlocal gone
            if not is_answered:
                gone = True
                task.cancel()

        async def watch() -> None:
            # A finished task keeps its exception, whose traceback keeps every frame's locals alive; so none leaves.
            with contextlib.suppress(asyncio.CancelledError):
                while (await receive())["type"] != "http.disconnect":
                    pass
                leave()

        async def watched() -> Message:
            nonlocal watcher
            message = await receive()
            if message["type"] == "http.disconnect":
                leave()
                await asyncio.sleep(0)  # the cancellation arrives here, before the reader sees the message
            elif watcher is None and not message.get("more_body", False):  # until then the body is its reader's
                watcher = asyncio.create_task(watch())
            return message

        async def noted(message: Message) -> None:
            nonlocal started, is_answered
            started = True
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, watched, noted)
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
            if not started:
                await send({"type": "http.response.start", "status": CLIENT_CLOSED_REQUEST, "headers": []})
                await send({"type": "http.response.body"})
        finally:
            if watcher is not None:
                watcher.cancel()
                # The watcher's context knows the request, and that knows ``watched``: a reference cycle of a hundred
                # objects a request, which only the garbage collector would break.
                watcher = None
