"""The memory of bodies: taken while they arrive, given back with the answer; what is too much is refused unread."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.http.middleware.body_memory import BodyMemory
from clip_retrieval.http.middleware.json_check import JsonCheck
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.serving.budget import FORM_COPIES, JSON_COPIES, Share
from clip_retrieval.serving.traffic import Traffic
from tests.http.middleware.asgi import Gate, ask, echo_size


def bounded(app: ASGIApp, total: int) -> tuple[ASGIApp, Share, Traffic]:
    memory, traffic = Share("the bodies of requests"), Traffic(8, 4)
    memory.total = total
    return RouteCheck(BodyMemory(app, memory=memory, traffic=traffic)), memory, traffic


@pytest.mark.parametrize(("path", "copies"), [("/search", JSON_COPIES), ("/search/similar", FORM_COPIES)])
def test_a_body_takes_memory_for_its_copies_until_it_is_answered(path: str, copies: int) -> None:
    taken = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        taken.append(memory.taken)
        await JSONResponse("done")(scope, receive, send)

    app, memory, _ = bounded(look, 1000)
    assert asyncio.run(ask(app, path, chunks=(b"x" * 30, b"y" * 10))).status == 200
    assert taken == [40 * copies]
    assert memory.taken == 0


def test_a_body_that_never_fits_is_413_and_one_that_does_not_fit_now_503() -> None:
    app, memory, traffic = bounded(echo_size, 500)
    never = asyncio.run(ask(app, "/search", chunks=[b"x" * 50] * 3))
    assert never.status == 413
    assert "MiB of memory for the bodies of requests" in never.error["detail"]
    memory.take_now(300)
    now = asyncio.run(ask(app, "/search", chunks=(b"x" * 50,)))
    assert (now.status, now.headers["retry-after"]) == (503, "1")
    assert memory.taken == 300
    memory.give(300)
    assert asyncio.run(ask(app, "/search", chunks=(b"x" * 50,))).body == b"50"
    assert traffic.rejected == {"too_large": 1, "too_many": 1}
    assert never.left == [], "the rest was read and dropped"


def test_what_is_announced_and_not_sent_holds_nothing() -> None:
    async def scenario() -> None:
        gate = Gate()
        app, memory, _ = bounded(gate, 500)
        waiting = asyncio.create_task(ask(app, "/search", headers={"Content-Length": "10000000"}, chunks=(b"",)))
        await asyncio.sleep(0)
        assert memory.taken == 0
        gate.open.set()
        await waiting

    asyncio.run(scenario())


def test_a_route_without_a_body_takes_nothing() -> None:
    app, memory, _ = bounded(echo_size, 0)
    assert asyncio.run(ask(app, "/livez", method="GET", chunks=(b"x" * 50,))).status == 200
    assert memory.taken == 0


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"queries": [1] * 4095}, 200, ""),
        ({"queries": [1] * 5000}, 422, "more than 4,096 values"),
        ({f"key{n}": 0 for n in range(5000)}, 422, "more than 4,096 values"),
    ],
)
def test_json_with_more_values_than_its_route_can_use_is_refused_before_it_is_parsed(
    body: object, status: int, says: str
) -> None:
    app = RouteCheck(JsonCheck(echo_size))
    sent = json.dumps(body).encode()
    answer = asyncio.run(ask(app, "/search", chunks=(sent[:100], sent[100:])))
    assert answer.status == status
    if says:
        assert says in answer.error["detail"]
    else:
        assert answer.body == str(len(sent)).encode(), "the whole body is passed on"


def test_json_that_is_nested_deeply_is_400() -> None:
    answer = asyncio.run(ask(RouteCheck(JsonCheck(echo_size)), "/search", chunks=(b"[" * 100_000,)))
    assert (answer.status, "64 deep" in answer.error["detail"]) == (400, True)
