"""Hands over to this project's own application, past what BentoML does for its routes and ours alike."""

from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.http.policy import OF_BENTOML, route_of


class OwnRoutes:
    """Gives ``own`` every request but those for BentoML's own routes.

    BentoML mounts an application behind its own routes, and tries all routes of both before it hands a request over. It
    also gives each request a context, which handlers of its own APIs may ask for.
    """

    def __init__(self, app: ASGIApp, *, own: ASGIApp) -> None:
        self._app, self._own = app, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_own = scope["type"] == "http" and _route(scope) not in OF_BENTOML
        await (self._own if is_own else self._app)(scope, receive, send)


def _route(scope: Scope) -> str | None:
    """Its row in the table; its path begins with the prefix below which a proxy serves this."""
    path: str = scope["path"]
    return route_of(path.removeprefix(scope.get("root_path", "")))
