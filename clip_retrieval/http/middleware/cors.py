"""Lets pages of the origins that are allowed read every answer, and says to browsers what those pages may send."""

from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.origins import Origins, preflight_headers
from clip_retrieval.http.policy import methods_of
from clip_retrieval.http.request_context import header


class Cors:
    """CORS on every answer, refusals too: it is outside of all that refuses. Preflights are answered here."""

    def __init__(self, app: ASGIApp, *, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._origins.none:
            await self._app(scope, receive, send)
            return
        origin = header(scope, b"origin").decode("latin-1")
        added = self._origins.headers(origin)

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    if name == "Vary":
                        headers.add_vary_header(value)
                    else:
                        headers[name] = value
            await send(message)

        answer = self._preflight(scope, origin)
        if answer is None:
            await self._app(scope, receive, with_cors)
        else:
            await answer(scope, receive, with_cors)

    def _preflight(self, scope: Scope, origin: str) -> Response | None:
        """The answer to a preflight; None for any other request, and for a path that is not served."""
        asked = header(scope, b"access-control-request-method").decode("latin-1")
        methods = methods_of(scope["path"])
        if scope["method"] != "OPTIONS" or not origin or not asked or methods is None:
            return None
        if not self._origins.allow(origin):
            detail = f"pages of {origin} may not use this service; BENTO_CLIP_CORS_ORIGINS names those that may"
            return error_response(HTTPStatus.FORBIDDEN, detail)
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=preflight_headers(methods))
