"""Does something with the first requests, which carry what can be had in no other way."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class UntilDone:
    """Calls ``hook`` with the scope of each request until it returns True."""

    def __init__(self, app: ASGIApp, *, hook: Callable[[Scope], bool]) -> None:
        self._app = app
        self._hook = hook
        self._is_done = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_done and scope["type"] == "http":
            self._is_done = self._hook(scope)
        await self._app(scope, receive, send)
