"""JSON that is parsed beside the event loop where it is large."""

import json
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from clip_retrieval.serving.large_bodies import read_by_size


class _JsonRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        return await read_by_size(len(body), partial(json.loads, body))


class JsonRoute(APIRoute):
    """A route whose body, if it is large, is parsed beside the event loop."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request.scope, request.receive))

        return handle
