"""Bodies are read: large JSON beside the event loop, and what cannot be read is refused with the reason."""

import json
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.serving.large_bodies import read_by_size

UNREADABLE = "There was an error parsing the body"
"""What FastAPI says of every body that it cannot read."""


class _JsonRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        try:
            return await read_by_size(len(body), partial(json.loads, body))
        except json.JSONDecodeError:
            raise  # FastAPI says where
        except UnicodeDecodeError as error:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, f"the body is not UTF-8 text: see its byte {error.start + 1}"
            ) from error
        except ValueError as error:  # Python's own limit of digits
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the body has a number of too many digits") from error


class JsonRoute(APIRoute):
    """A route whose body, if it is large, is parsed beside the event loop."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(_JsonRequest(request.scope, request.receive))
            except HTTPException as error:
                if error.detail != UNREADABLE:
                    raise
                kind = request.headers.get("content-type", "")[:100]
                raise HTTPException(
                    error.status_code, f"the body cannot be read as {kind}: check the boundary and the charset"
                ) from error

        return handle
