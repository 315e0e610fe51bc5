"""The middleware alone, around applications of a few lines: what is turned away, and what every error looks like.

Applications and their server are functions here: ``ask`` plays uvicorn for one request and returns what was sent.
"""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.contract.base import describe
from clip_retrieval.http.middleware import (
    MAX_DETAIL,
    UNBOUNDED,
    UNBOUNDED_BELOW,
    Disconnects,
    ErrorBodies,
    Guard,
    MediaTypes,
)
from clip_retrieval.serving.traffic import TURNED_AWAY, Traffic

LIMIT = 100


@dataclass
class Answer:
    """What a client saw of one request; ``left`` is the body that nobody read."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    left: list[bytes] = field(default_factory=list)

    @property
    def error(self) -> dict[str, str]:
        """The error body, which has exactly these fields, with something in each."""
        assert self.headers["content-type"] == "application/json"
        body: dict[str, str] = json.loads(self.body)
        assert body.keys() == {"error", "detail"}
        assert all(body.values())
        return body


async def ask(
    app: ASGIApp,
    path: str = "/search/images",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    chunks: Iterable[bytes] = (b"",),
    impatient: bool = False,
) -> Answer:
    """``impatient``: the client goes away once its request is sent."""
    answer = Answer(left=list(chunks))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }

    async def receive() -> Message:
        if not answer.left:
            await asyncio.sleep(0 if impatient else 60)
            return {"type": "http.disconnect"}
        body = answer.left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(answer.left)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0, "one answer a request"
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


async def echo_size(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and answers with its size."""
    size = len(await Request(scope, receive).body())
    await JSONResponse(size)(scope, receive, send)


def guard(app: ASGIApp = echo_size, **options: Any) -> Guard:
    return Guard(app, **({"max_body_bytes": LIMIT, "max_pending": 2, "timeout_s": 5} | options))


# Guard: bytes


def test_a_body_at_the_limit_passes() -> None:
    answer = asyncio.run(ask(guard(), headers={"Content-Length": "100"}, chunks=[b"x" * 60, b"x" * 40]))
    assert (answer.status, answer.body) == (200, b"100")


def test_a_body_declared_over_the_limit_is_refused_before_the_application_runs_and_is_drained() -> None:
    async def unreached(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was called")

    chunks = [b"x" * 60, b"x" * 41]
    answer = asyncio.run(ask(guard(unreached), headers={"Content-Length": "101"}, chunks=chunks))
    assert answer.status == 413
    assert answer.error["detail"] == "the body is over the limit of 100 bytes"
    assert answer.headers["connection"] == "close"
    assert answer.left == []


def test_a_body_of_unknown_length_is_refused_while_it_is_read_and_is_drained() -> None:
    answer = asyncio.run(ask(guard(), chunks=[b"x" * 30] * 9))
    assert answer.status == 413
    assert answer.error["error"] == "Request Entity Too Large"
    assert answer.left == []


def test_a_length_that_is_declared_too_small_does_not_help() -> None:
    answer = asyncio.run(ask(guard(), headers={"Content-Length": "1"}, chunks=[b"x" * 30] * 9))
    assert answer.status == 413


def test_an_application_that_answers_for_the_error_itself_is_not_heard() -> None:
    """Frameworks turn any exception while a body is read into an answer of their own."""

    async def careless(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Request(scope, receive).body()
        except Exception:  # noqa: BLE001
            await PlainTextResponse("There was an error parsing the body", 400)(scope, receive, send)

    assert asyncio.run(ask(guard(careless), chunks=[b"x" * 30] * 9)).status == 413


def test_draining_ends_when_the_client_goes_away() -> None:
    async def gone(path: str) -> Answer:
        return await ask(guard(), path, headers={"Content-Length": "1000"}, chunks=[], impatient=True)

    assert asyncio.run(gone("/search/images")).status == 413


def test_a_path_may_have_a_smaller_limit() -> None:
    guarded = guard(smaller_bodies={"/search/images": 10})
    assert asyncio.run(ask(guarded, chunks=[b"x" * 11])).error["detail"] == "the body is over the limit of 10 bytes"
    assert asyncio.run(ask(guarded, "/search/text", chunks=[b"x" * 11])).status == 200


# Guard: requests at once


class Gate:
    """An application whose answers wait for ``open``."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.open.wait()
        await JSONResponse("done")(scope, receive, send)


def test_more_requests_than_accepted_get_503_with_retry_after_and_the_next_one_is_served_when_one_ends() -> None:
    async def scenario() -> None:
        gate = Gate()
        guarded = guard(gate)
        accepted = [asyncio.create_task(ask(guarded)) for _ in range(2)]
        await asyncio.sleep(0)
        for _ in range(3):
            turned_away = await ask(guarded)
            assert turned_away.status == 503
            assert turned_away.headers["retry-after"] == "1"
            assert "2 requests are under way" in turned_away.error["detail"]
        gate.open.set()
        assert [(await task).status for task in accepted] == [200, 200]
        assert (await ask(guarded)).status == 200

    asyncio.run(scenario())


def test_a_request_that_fails_gives_its_place_back() -> None:
    async def scenario() -> None:
        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            raise RuntimeError

        guarded = guard(failing, max_pending=1)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await ask(guarded)

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [*sorted(UNBOUNDED), f"{UNBOUNDED_BELOW}small/a.jpg"])
def test_cheap_paths_answer_when_all_places_are_taken(path: str) -> None:
    async def scenario() -> None:
        gate = Gate()
        guarded = guard(gate, max_pending=1)
        held = asyncio.create_task(ask(guarded))
        await asyncio.sleep(0)
        cheap = asyncio.create_task(ask(guarded, path, method="GET"))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await cheap).status == 200
        assert (await held).status == 200

    asyncio.run(scenario())


def test_what_is_under_way_and_what_was_turned_away_can_be_seen_from_outside() -> None:
    async def scenario() -> None:
        gate, traffic = Gate(), Traffic()
        guarded = guard(gate, max_pending=1, traffic=traffic)
        held = asyncio.create_task(ask(guarded))
        await asyncio.sleep(0)
        assert traffic.pending == 1
        await ask(guarded)
        gate.open.set()
        await held
        assert traffic.pending == 0
        assert traffic.turned_away == {"too_many": 1}
        await ask(guard(traffic=traffic), chunks=[b"x" * 101])
        await ask(guard(traffic=traffic), headers={"Content-Length": "101"}, chunks=[b"x" * 101])
        await ask(guard(Gate(), timeout_s=0.01, traffic=traffic))
        assert traffic.turned_away == {"too_many": 1, "too_large": 2, "too_slow": 1}
        assert set(traffic.turned_away) == set(TURNED_AWAY)

    asyncio.run(scenario())


# Guard: time


def test_an_answer_that_takes_too_long_becomes_504() -> None:
    async def scenario() -> None:
        answer = await ask(guard(Gate(), timeout_s=0.01))
        assert answer.status == 504
        assert answer.error["detail"] == "there was no answer within 0.01 seconds"

    asyncio.run(scenario())


def test_a_body_that_comes_too_slowly_becomes_504() -> None:
    async def slow_reader(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    assert asyncio.run(ask(guard(slow_reader, timeout_s=0.01))).status == 504


def test_what_is_not_http_passes() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        raise AssertionError("nothing is received or sent")

    for middleware in (guard(app), ErrorBodies(app), MediaTypes(app, expected={})):
        asyncio.run(middleware({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"] * 3


# MediaTypes

JSON_PATH = {"/search/images": "application/json"}


@pytest.mark.parametrize("value", ["application/json", "Application/JSON; charset=utf-8", "application/json;"])
def test_the_expected_content_type_passes(value: str) -> None:
    app = MediaTypes(echo_size, expected=JSON_PATH)
    assert asyncio.run(ask(app, headers={"Content-Type": value})).status == 200


@pytest.mark.parametrize("value", ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", ""])
def test_another_content_type_is_refused_with_what_is_expected(value: str) -> None:
    answer = asyncio.run(ask(MediaTypes(echo_size, expected=JSON_PATH), headers={"Content-Type": value}))
    assert answer.status == 415
    assert answer.error["detail"] == f"this path reads application/json; the Content-Type is {value or 'missing'}"


def test_other_paths_and_methods_are_left_alone() -> None:
    app = MediaTypes(echo_size, expected=JSON_PATH)
    assert asyncio.run(ask(app, "/search/text", headers={"Content-Type": "image/png"})).status == 200
    assert asyncio.run(ask(app, method="GET")).status == 200


# ErrorBodies


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
    answer = asyncio.run(ask(ErrorBodies(response)))
    assert answer.status == response.status_code
    assert answer.error == {"error": error, "detail": detail}
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(("kind", "status"), [("json_invalid", 400), ("too_long", 422), ("value_error", 422)])
def test_values_that_bentoml_calls_malformed_are_unprocessable(kind: str, status: int) -> None:
    body = {"error": "1 validation error for Input", "detail": [{"type": kind, "loc": ["texts"], "msg": "is bad"}]}
    answer = asyncio.run(ask(ErrorBodies(JSONResponse(body, 400))))
    assert answer.status == status
    assert answer.error["detail"] == "texts: is bad"


def test_an_error_sent_in_pieces_is_read_whole() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield '{"detail": '
        yield '"in two pieces"}'

    async def scenario() -> Answer:
        return await ask(ErrorBodies(StreamingResponse(pieces(), 400)))

    assert asyncio.run(scenario()).error["detail"] == "in two pieces"


def test_headers_of_an_error_are_kept() -> None:
    answer = asyncio.run(ask(ErrorBodies(PlainTextResponse("no", 405, headers={"Allow": "POST"}))))
    assert answer.headers["allow"] == "POST"


def test_every_503_says_when_to_come_back() -> None:
    answer = asyncio.run(ask(ErrorBodies(JSONResponse({"error": "process is overloaded"}, 503))))
    assert answer.headers["retry-after"] == "1"
    answer = asyncio.run(ask(ErrorBodies(PlainTextResponse("later", 503, headers={"Retry-After": "9"}))))
    assert answer.headers["retry-after"] == "9"


@pytest.mark.parametrize("status", [200, 204, 307])
def test_what_is_no_error_passes_as_it_is(status: int) -> None:
    answer = asyncio.run(ask(ErrorBodies(Response(b"" if status == 204 else b"as it is", status))))
    assert (answer.status, answer.body) == (status, b"" if status == 204 else b"as it is")


def test_an_exception_becomes_a_500_that_shows_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("password=hunter2")

    answer = asyncio.run(ask(ErrorBodies(failing)))
    assert answer.status == 500
    assert answer.error["error"] == "Internal Server Error"
    assert b"hunter2" not in answer.body
    assert b"Traceback" not in answer.body
    assert "hunter2" in caplog.text, "the log has the cause"


def test_an_exception_after_the_answer_began_is_passed_on() -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("half")(scope, receive, send)
        raise RuntimeError("too late")

    with pytest.raises(RuntimeError, match="too late"):
        asyncio.run(ask(ErrorBodies(failing)))


def test_a_detail_that_has_no_utf8_or_no_end_is_still_an_answer() -> None:
    answer = asyncio.run(ask(ErrorBodies(JSONResponse({"detail": "\\"}, 400))))
    assert answer.error["detail"] == "\\"
    surrogate = Response(rb'{"detail": "\ud800 is no character"}', 400, media_type="application/json")
    assert asyncio.run(ask(ErrorBodies(surrogate))).error["detail"] == "? is no character"
    endless = PlainTextResponse("x" * 100_000, 400)
    assert asyncio.run(ask(ErrorBodies(endless))).error["detail"] == "x" * MAX_DETAIL + " …"


def test_many_problems_are_cut_short() -> None:
    problems = [{"loc": ("body", f"field{n}"), "msg": "Extra"} for n in range(100)]
    assert describe(problems).startswith("field0: Extra; field1: Extra; ")
    assert describe(problems).endswith("; and 92 more")
    assert describe([{"loc": ("body",), "msg": "Field required"}]) == "body: Field required"


# Disconnects


def test_the_work_for_a_client_that_went_away_is_cancelled() -> None:
    async def scenario() -> None:
        ended = []

        async def long(scope: Scope, receive: Receive, send: Send) -> None:
            await Request(scope, receive).body()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        guarded = Disconnects(guard(long, max_pending=1))
        for _ in range(2):
            answer = await ask(guarded, chunks=[b"a", b"b"], impatient=True)
            assert answer.status == 499, "what waits for the answer, though nobody reads it, must see its end"
        assert ended == ["cancelled"] * 2

    asyncio.run(scenario())


def test_a_client_that_goes_away_before_its_body_has_ended_is_no_error() -> None:
    async def scenario() -> None:
        messages: Iterator[Message] = iter(
            [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]
        )
        sent: list[Message] = []

        async def receive() -> Message:
            return next(messages)

        async def send(message: Message) -> None:
            sent.append(message)

        async def reads(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await Request(scope, receive).body()
            except ClientDisconnect as error:
                pytest.fail(f"the reader saw {error!r}")

        await Disconnects(reads)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        assert [message.get("status") for message in sent] == [499, None]

    asyncio.run(scenario())


def test_an_answer_that_has_begun_is_not_followed_by_another() -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    answer = asyncio.run(ask(Disconnects(streams), impatient=True))
    assert answer.status == 200


def test_a_client_that_waits_gets_its_answer() -> None:
    answer = asyncio.run(ask(Disconnects(echo_size), chunks=[b"1234", b"567"]))
    assert (answer.status, answer.body) == (200, b"7")


def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    """Circles of objects have to be looked for, and under load that stops everything for a quarter of a second."""
    current: ContextVar[Request] = ContextVar("current")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = current.set(request := Request(scope, receive))  # as BentoML does
        await JSONResponse(len(await request.body()))(scope, receive, send)
        current.reset(token)

    async def scenario() -> int:
        stack = Disconnects(ErrorBodies(guard(app)))
        for collected in (True, False):  # the first request leaves what is made once
            assert (await asyncio.create_task(ask(stack))).status == 200
            await asyncio.sleep(0)
            if collected:
                gc.collect()
                gc.disable()
        return gc.collect()

    try:
        assert asyncio.run(scenario()) == 0
    finally:
        gc.enable()


def test_a_cancellation_that_is_not_for_a_client_passes() -> None:
    async def scenario() -> None:
        waiting = asyncio.create_task(ask(Disconnects(Gate())))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())


# Guard: two kinds of requests


def test_the_slower_kind_cannot_take_every_place() -> None:
    async def scenario() -> None:
        gate = Gate()
        guarded = guard(gate, max_pending=3, slow_paths={"/slow"}, max_slow=1)
        slow = asyncio.create_task(ask(guarded, "/slow"))
        await asyncio.sleep(0)
        turned_away = await ask(guarded, "/slow")
        assert turned_away.status == 503
        assert turned_away.headers["retry-after"] == "1"
        assert turned_away.error["detail"].startswith("1 requests of this kind are under way")
        quick = [asyncio.create_task(ask(guarded)) for _ in range(2)]
        await asyncio.sleep(0)
        assert (await ask(guarded)).error["detail"].startswith("3 requests are under way")
        gate.open.set()
        assert [(await task).status for task in (slow, *quick)] == [200] * 3
        assert (await ask(guarded, "/slow")).status == 200

    asyncio.run(scenario())
