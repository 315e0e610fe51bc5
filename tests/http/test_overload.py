"""While there is no place, a request is refused before everything else, a crowd after a pause."""

import asyncio
import logging
import time

import pytest

from clip_retrieval.http.overload import Overload, Refusals
from clip_retrieval.http.policy import ROUTES
from clip_retrieval.serving.pace import PROMPT, Pace
from clip_retrieval.serving.traffic import Traffic
from tests.http.middleware.asgi import ask, echo_size


def full(*, images: bool = False, pause_s: float = 0.05) -> Traffic:
    """No place is left, or none for images."""
    traffic = Traffic(2 if images else 1, 1, pace=Pace(pause_s))
    traffic.enter(brings_image=images)
    return traffic


def overload(traffic: Traffic) -> Overload:
    return Overload(echo_size, refusals=Refusals(traffic))


def test_a_refusal_has_the_body_of_errors_and_says_when_to_come_back() -> None:
    traffic = full()
    answer = asyncio.run(ask(overload(traffic), chunks=[b"{}"]))
    assert answer.status == 503
    assert answer.error == {
        "error": "Service Unavailable",
        "detail": "too many requests in progress; retry after 1 s",
    }
    assert answer.headers["retry-after"] == "1"
    assert answer.left == [b"{}"], "nothing was read"
    assert traffic.rejected == {"too_many": 1}


def test_what_always_answers_and_what_has_no_row_passes() -> None:
    for path, row in ROUTES.items():
        for method, policy in row.items():
            answer = asyncio.run(ask(overload(full()), path, method=method))
            assert answer.status == (200 if policy.always_answers else 503), (path, method)
    assert asyncio.run(ask(overload(full()), "/nowhere")).status == 200


def test_everything_passes_while_there_is_room_and_texts_while_there_is_none_for_images() -> None:
    assert asyncio.run(ask(overload(Traffic(1, 1)))).status == 200
    images = overload(full(images=True))
    assert asyncio.run(ask(images)).status == 200
    assert asyncio.run(ask(images, "/search/text")).status == 503


def test_a_crowd_waits_for_its_refusals_and_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> tuple[list[float], int]:
        app = overload(full(pause_s=0.3))

        async def one() -> float:
            began = time.monotonic()
            assert (await ask(app)).status == 503
            return time.monotonic() - began

        took = await asyncio.gather(*(one() for _ in range(PROMPT + 50)))
        await asyncio.sleep(1.1)
        return took, len(caplog.records)

    with caplog.at_level(logging.WARNING):
        took, lines = asyncio.run(scenario())
    assert sum(seconds >= 0.3 for seconds in took) == 50
    assert lines == 1
    assert caplog.messages == [f"{PROMPT + 50} requests in a second were refused with 503: too many in progress"]
