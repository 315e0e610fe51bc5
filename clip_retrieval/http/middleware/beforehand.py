"""Middleware for routes of BentoML's that lack something: it comes before they answer."""

from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Beforehand:
    """Calls the hook of a request's path, if it has one; the hook may answer in the route's place."""

    def __init__(self, app: ASGIApp, *, hooks: Mapping[str, Callable[[], Response | None]]) -> None:
        self._app = app
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (hook := self._hooks.get(scope["path"])) is not None:
            answer = hook()
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
