"""An id for each request: in its answer, whatever that is, and in what is logged meanwhile."""

import asyncio
import logging
import re

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.request_ids import RequestIds
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.request_context import request_id_of
from clip_retrieval.serving.request_id import CURRENT, NameRequest
from tests.http.middleware.asgi import ask, echo_size

MADE = re.compile("[0-9a-f]{32}")


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("broken")


def test_a_request_without_an_id_gets_one_of_its_own() -> None:
    ids = {asyncio.run(ask(RequestIds(echo_size))).headers["x-request-id"] for _ in range(50)}
    assert len(ids) == 50
    assert all(MADE.fullmatch(one) for one in ids)


@pytest.mark.parametrize("given", ["abc", "0f8fad5b-d9cd-469f-a165-70867728950e", "1-5759e988:Root=/a+b@c", "x" * 128])
def test_a_sane_id_is_taken_over(given: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"{request_id_of(scope)} {CURRENT.get()}")(scope, receive, send)

    answer = asyncio.run(ask(RequestIds(app), headers={"X-Request-Id": given}))
    assert answer.headers["x-request-id"] == given
    assert answer.body.decode() == f"{given} {given}"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\nb", "a\x1b[31m", "é", "a%20b", '"', "<b>", "a,b"])
def test_any_other_id_is_replaced(given: str) -> None:
    answer = asyncio.run(ask(RequestIds(echo_size), headers={"X-Request-Id": given}))
    assert MADE.fullmatch(answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/nowhere", "/stats", "/search/images"])
def test_refusals_and_failures_have_it_too(path: str) -> None:
    answer = asyncio.run(ask(RequestIds(ErrorEnvelope(RouteCheck(failing))), path, headers={"X-Request-Id": "abc"}))
    assert answer.status in {404, 405, 500}
    assert answer.headers["x-request-id"] == "abc"


def test_an_answer_has_one_id_whatever_the_application_says() -> None:
    app = PlainTextResponse("", headers={"X-Request-Id": "other"})
    assert asyncio.run(ask(RequestIds(app), headers={"X-Request-Id": "abc"})).headers["x-request-id"] == "abc"


def test_an_error_that_is_logged_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(NameRequest())
    asyncio.run(ask(RequestIds(ErrorEnvelope(failing)), headers={"X-Request-Id": "abc"}))
    (record,) = caplog.records
    assert record.getMessage() == "unhandled error in POST '/search/images' (request abc)"
    assert record.exc_info is not None
    caplog.clear()
    logging.getLogger("elsewhere").warning("100 % outside of a request")
    assert caplog.records[0].getMessage() == "100 % outside of a request"
