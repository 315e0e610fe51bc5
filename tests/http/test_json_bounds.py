"""A handler with one model reads its body as FastAPI would read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from clip_retrieval.http import json_bounds
from clip_retrieval.http.json_bounds import JsonRoute


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    k: int = 5


@contextmanager
def client_of(route_class: type[APIRoute]) -> Iterator[TestClient]:
    app = FastAPI()
    app.router.route_class = route_class

    async def faults(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        kept = [{name: fault.get(name) for name in ("type", "loc", "ctx")} for fault in error.errors()]
        return JSONResponse({"faults": kept}, 422)

    app.add_exception_handler(RequestValidationError, faults)

    @app.post("/with-request")
    async def with_request(body: Asked, request: Request) -> Response:
        return JSONResponse({"text": body.text, "k": body.k, "method": request.method})

    @app.post("/without")
    async def without(body: Asked) -> Response:
        return JSONResponse({"text": body.text, "k": body.k})

    @app.post("/model")
    async def model(body: Asked) -> Asked:
        return body

    with TestClient(app) as client:
        yield client


BODIES = [
    b"",
    b"null",
    b"{}",
    b"[]",
    b'"red"',
    b"3",
    b'{"text": "red"}',
    b'{"text": "red", "k": "7"}',
    b'{"text": "red", "k": "seven"}',
    b'{"text": 1, "k": [], "x": 2}',
    b'{"text": "red", "text": "blue"}',
    b'{"text": "red", "k": NaN}',
    b'{"text": "red", "k": 1e400}',
    b'{"text": }',
    b'{"text": "red"} x',
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("path", ["/with-request", "/without", "/model"])
@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_read_as_by_fastapi(path: str, body: bytes) -> None:
    answers = []
    for route_class in (APIRoute, JsonRoute):
        with client_of(route_class) as client:
            response = client.post(path, content=body, headers={"Content-Type": "application/json"})
            answers.append((response.status_code, response.json()))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("path", "is_direct"), [("/with-request", True), ("/without", True), ("/model", False)])
def test_only_a_handler_that_makes_its_response_goes_without_fastapi(path: str, is_direct: bool) -> None:
    with client_of(JsonRoute) as client:
        [route] = [one for one in client.app.routes if getattr(one, "path", None) == path]  # type: ignore[attr-defined]
    handler: Any = route.get_route_handler()
    assert (handler.__qualname__.startswith(json_bounds._handler_of.__name__)) == is_direct
