"""A form that was cut off is said to be so, wherever it was cut; a whole one is passed on as it came."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from clip_retrieval.http.middleware.form_check import FormCheck
from clip_retrieval.http.middleware.route_check import RouteCheck
from tests.http.middleware.asgi import ask, echo_size

KIND = {"Content-Type": 'multipart/form-data; boundary="edge"'}
FILE = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + bytes(99) + b"\r\n"
CAPTION = b'--edge\r\nContent-Disposition: form-data; name="captions"\r\n\r\na dog\r\n'
WHOLE = FILE + CAPTION + b"--edge--"


@pytest.mark.parametrize("end", [len(FILE) - 50, len(FILE), len(FILE) + 30, len(WHOLE) - 10, len(WHOLE) - 1])
def test_a_form_without_its_end_is_refused(end: int) -> None:
    answer = asyncio.run(ask(RouteCheck(FormCheck(echo_size)), "/search/similar", headers=KIND, chunks=[WHOLE[:end]]))
    assert answer.status == 422
    assert answer.error["detail"] == "the form is cut off: its last line, --edge--, is missing; send it whole"


@pytest.mark.parametrize("epilogue", [b"", b"\r\n", b"\r\nand more"])
def test_a_whole_form_is_passed_on(epilogue: bytes) -> None:
    async def names(scope: Scope, receive: Receive, send: Send) -> None:
        async with Request(scope, receive).form() as form:
            await JSONResponse(list(form))(scope, receive, send)

    app = RouteCheck(FormCheck(names))
    answer = asyncio.run(ask(app, "/search/similar", headers=KIND, chunks=[WHOLE[:40], WHOLE[40:] + epilogue]))
    assert (answer.status, answer.body) == (200, b'["file","captions"]')


def test_what_is_no_form_at_all_is_left_to_the_parser() -> None:
    for headers, body in ((KIND, b"hello"), ({"Content-Type": "multipart/form-data"}, WHOLE[:20])):
        answer = asyncio.run(ask(RouteCheck(FormCheck(echo_size)), "/search/similar", headers=headers, chunks=[body]))
        assert (answer.status, answer.body) == (200, str(len(body)).encode())


def test_the_start_of_a_service_is_passed_on() -> None:
    """A server asks every application that it starts; it has no headers."""
    begun = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    asyncio.run(RouteCheck(FormCheck(application))({"type": "lifespan"}, receive, send))
    assert begun == ["lifespan"]
