"""Middleware that has the metrics brought up to date before they are read."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class BeforeScrape:
    """Middleware that calls ``refresh`` when ``/metrics`` is about to be read."""

    def __init__(self, app: ASGIApp, *, refresh: Callable[[], None]) -> None:
        self._app = app
        self._refresh = refresh

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/metrics":
            self._refresh()
        await self._app(scope, receive, send)
