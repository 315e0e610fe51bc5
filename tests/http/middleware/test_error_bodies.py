"""Every error has the API's one body, whatever made it. BentoML's errors have the shapes of its pinned version."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from clip_retrieval.contract.base import describe
from clip_retrieval.http.error_response import MAX_DETAIL
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from tests.http.middleware.asgi import Answer, ask


@pytest.mark.parametrize(
    ("response", "error", "detail"),
    [
        (PlainTextResponse("no such thing", 404), "Not Found", "no such thing"),
        (PlainTextResponse("Not Found", 404), "Not Found", "Nothing matches the given URI"),
        (PlainTextResponse("", 405), "Method Not Allowed", "Specified method is invalid for this resource"),
        (PlainTextResponse(b"\xff\xfe", 400), "Bad Request", "\ufffd\ufffd"),
        (JSONResponse({"detail": "too long"}, 422), "Unprocessable Entity", "too long"),
        (JSONResponse({"error": "too long"}, 422), "Unprocessable Entity", "too long"),
        (JSONResponse({"error": "Invalid", "detail": "too long"}, 422), "Unprocessable Entity", "too long"),
        (JSONResponse([{"error": "too long"}], 400), "Bad Request", "too long"),
        (JSONResponse("too long", 400), "Bad Request", "too long"),
        (JSONResponse({}, 400), "Bad Request", "Bad request syntax or unsupported method"),
        (JSONResponse([], 400), "Bad Request", "[]"),
        (
            JSONResponse({"error": "1 error", "detail": [{"loc": ["texts", 0], "msg": "Value error, is empty"}]}, 400),
            "Bad Request",
            "texts.0: is empty",
        ),
        (JSONResponse({"detail": [{"msg": "Invalid"}, "and more"]}, 400), "Bad Request", "Invalid; and more"),
    ],
    ids=lambda value: "" if isinstance(value, str) else bytes(value.body).decode("latin-1")[:50] or "empty",
)
def test_every_error_gets_the_one_body(response: Response, error: str, detail: str) -> None:
    answer = asyncio.run(ask(ErrorEnvelope(response)))
    assert answer.status == response.status_code
    assert answer.error == {"error": error, "detail": detail}
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(("kind", "status"), [("json_invalid", 400), ("too_long", 422), ("value_error", 422)])
def test_values_that_bentoml_calls_malformed_are_unprocessable(kind: str, status: int) -> None:
    body = {"error": "1 validation error for Input", "detail": [{"type": kind, "loc": ["texts"], "msg": "is bad"}]}
    answer = asyncio.run(ask(ErrorEnvelope(JSONResponse(body, 400))))
    assert answer.status == status
    assert answer.error["detail"] == "texts: is bad"


def test_an_error_sent_in_pieces_is_read_whole() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield '{"detail": '
        yield '"in two pieces"}'

    async def scenario() -> Answer:
        return await ask(ErrorEnvelope(StreamingResponse(pieces(), 400)))

    assert asyncio.run(scenario()).error["detail"] == "in two pieces"


def test_headers_of_an_error_are_kept() -> None:
    answer = asyncio.run(ask(ErrorEnvelope(PlainTextResponse("no", 405, headers={"Allow": "POST"}))))
    assert answer.headers["allow"] == "POST"


def test_every_503_says_when_to_come_back() -> None:
    answer = asyncio.run(ask(ErrorEnvelope(JSONResponse({"error": "process is overloaded"}, 503))))
    assert answer.headers["retry-after"] == "1"
    answer = asyncio.run(ask(ErrorEnvelope(PlainTextResponse("later", 503, headers={"Retry-After": "9"}))))
    assert answer.headers["retry-after"] == "9"


@pytest.mark.parametrize("status", [200, 204, 307])
def test_what_is_no_error_passes_as_it_is(status: int) -> None:
    answer = asyncio.run(ask(ErrorEnvelope(Response(b"" if status == 204 else b"as it is", status))))
    assert (answer.status, answer.body) == (status, b"" if status == 204 else b"as it is")


def test_an_exception_becomes_a_500_that_shows_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("password=hunter2")

    answer = asyncio.run(ask(ErrorEnvelope(failing)))
    assert answer.status == 500
    assert answer.error["error"] == "Internal Server Error"
    assert b"hunter2" not in answer.body
    assert b"Traceback" not in answer.body
    assert "hunter2" in caplog.text, "the log has the cause"


def test_an_exception_after_the_answer_began_is_passed_on() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        asyncio.run(ask(ErrorEnvelope(failing)))


def test_a_detail_that_has_no_utf8_or_no_end_is_still_an_answer() -> None:
    answer = asyncio.run(ask(ErrorEnvelope(JSONResponse({"detail": "\\"}, 400))))
    assert answer.error["detail"] == "\\"
    surrogate = Response(rb'{"detail": "\ud800 is no character"}', 400, media_type="application/json")
    assert asyncio.run(ask(ErrorEnvelope(surrogate))).error["detail"] == "? is no character"
    endless = PlainTextResponse("x" * 100_000, 400)
    assert asyncio.run(ask(ErrorEnvelope(endless))).error["detail"] == "x" * MAX_DETAIL + " …"


def test_many_problems_are_cut_short() -> None:
    problems = [{"loc": ("body", f"field{n}"), "msg": "Extra"} for n in range(100)]
    assert describe(problems).startswith("field0: Extra; field1: Extra; ")
    assert describe(problems).endswith("; and 92 more")
    assert describe([{"loc": ("body",), "msg": "Field required"}]) == "body: is missing"


def test_an_exception_after_a_whole_answer_is_logged_once_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette answers 500 and raises what it has answered; the server would log it again."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("Internal Server Error", 500)(scope, receive, send)
        raise RuntimeError("answered")

    answer = asyncio.run(ask(ErrorEnvelope(failing)))
    assert (answer.status, answer.error["error"]) == (500, "Internal Server Error")
    assert len(caplog.records) == 1
