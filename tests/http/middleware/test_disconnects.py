"""A client that goes away ends the work for it, and leaves nothing behind."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.middleware.admission import Admission
from clip_retrieval.http.middleware.disconnects import CancelOnDisconnect
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.serving.traffic import Traffic
from tests.http.middleware.asgi import Gate, ask, echo_size

ROOT = Path(__file__).parents[3]


def admit(app: ASGIApp) -> ASGIApp:
    return RouteCheck(Admission(app, traffic=Traffic(1, 1), timeout_s=5))


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

        app = CancelOnDisconnect(admit(long))
        for _ in range(2):
            answer = await ask(app, chunks=[b"a", b"b"], impatient=True)
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

        await CancelOnDisconnect(reads)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        assert [message.get("status") for message in sent] == [499, None]

    asyncio.run(scenario())


def test_an_answer_that_has_begun_is_not_followed_by_another() -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    answer = asyncio.run(ask(CancelOnDisconnect(streams), impatient=True))
    assert answer.status == 200


def test_a_client_that_waits_gets_its_answer() -> None:
    answer = asyncio.run(ask(CancelOnDisconnect(echo_size), chunks=[b"1234", b"567"]))
    assert (answer.status, answer.body) == (200, b"7")


async def garbage_of_a_request() -> int:
    """How many objects a request leaves to the garbage collector; a first one leaves what is made once."""
    current: ContextVar[Request] = ContextVar("current")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = current.set(request := Request(scope, receive))  # as BentoML does
        await JSONResponse(len(await request.body()))(scope, receive, send)
        current.reset(token)

    stack = CancelOnDisconnect(ErrorEnvelope(admit(app)))
    for collected in (True, False):
        assert (await asyncio.create_task(ask(stack))).status == 200
        await asyncio.sleep(0)
        if collected:
            gc.collect()
            gc.disable()
    return gc.collect()


def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    """Reference cycles have to be searched for, and under load that stops everything for a quarter of a second.

    In a process of its own: threads that other tests leave behind make garbage too. A new release of CPython or
    Starlette may leave a cycle of its own: look at ``gc.get_objects`` first.
    """
    code = f"import asyncio; from {__name__} import garbage_of_a_request as run; print(asyncio.run(run()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["0"]


def test_a_cancellation_that_is_not_for_a_client_passes() -> None:
    async def scenario() -> None:
        waiting = asyncio.create_task(ask(CancelOnDisconnect(Gate())))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())


def test_work_after_a_whole_answer_is_done_though_the_client_leaves() -> None:
    """Such as closing the file of an upload; the server says that the client has left after every answer."""

    async def scenario() -> None:
        closed = []

        async def cleans_up(scope: Scope, receive: Receive, send: Send) -> None:
            await Request(scope, receive).body()
            await JSONResponse("done")(scope, receive, send)
            await asyncio.sleep(0.05)
            closed.append(scope["path"])

        answer = await ask(CancelOnDisconnect(cleans_up), impatient=True)
        assert (answer.status, answer.body) == (200, b'"done"')
        assert closed == ["/search/images"]

    asyncio.run(scenario())
