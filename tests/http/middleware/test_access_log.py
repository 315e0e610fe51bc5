"""One line in the log for each request, with nothing in it that a client could forge."""

import asyncio
import logging
import re

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from clip_retrieval.access.gate import Gate
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import new_key
from clip_retrieval.http.middleware.access_log import LOGGER, QUIET_PATHS, AccessLog
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.request_ids import RequestIds
from clip_retrieval.http.middleware.route_check import RouteCheck
from tests.http.middleware.asgi import ask, echo_size


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)


def test_a_line_says_what_was_asked_how_it_ended_and_how_long_that_took(caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Content-Length": "3", "X-Request-Id": "abc-1"}
    asyncio.run(ask(RequestIds(AccessLog(echo_size)), headers=headers, chunks=[b"abc"]))
    (record,) = caplog.records
    assert re.fullmatch(r"POST /search/images 200 \d+\.\d ms abc-1", record.getMessage())
    fields = record.access  # type: ignore[attr-defined]
    assert 0 < fields.pop("duration_ms") < 5000
    assert fields == {
        "method": "POST",
        "path": "/search/images",
        "status": 200,
        "request_bytes": 3,
        "response_bytes": 1,
        "client": ":0",
        "request_id": "abc-1",
    }


def test_a_line_names_the_key_and_never_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    secret, key = new_key("anna", "search")
    guarded = RouteCheck(Authentication(echo_size, gate=Gate(KeyRing([key]))))
    answer = asyncio.run(ask(AccessLog(guarded), headers={"X-API-Key": secret}))
    assert answer.status == 200
    (record,) = caplog.records
    assert record.access["key"] == "anna"  # type: ignore[attr-defined]
    assert secret not in repr(vars(record))


def test_a_request_that_fails_has_its_line_too(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(ask(AccessLog(failing)))
    assert caplog.records[0].getMessage().startswith("POST /search/images 0 ")


@pytest.mark.parametrize("path", ["/a\nGET /admin 200", "/a\r\nb", "/\x1b[31mred", "/a\u2028b", "/\x00"])
def test_a_path_cannot_look_like_another_line(caplog: pytest.LogCaptureFixture, path: str) -> None:
    asyncio.run(ask(AccessLog(PlainTextResponse("")), path))
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert record.access["path"] == path, "a structured log keeps the path as it was"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("status", "lines"), [(200, 0), (304, 0), (404, 1), (500, 1)])
def test_thumbnails_have_lines_only_if_they_went_wrong(
    caplog: pytest.LogCaptureFixture, status: int, lines: int
) -> None:
    app = AccessLog(PlainTextResponse("", status))
    asyncio.run(ask(app, "/thumbnails/small/a.png", method="GET"))
    assert len(caplog.records) == lines


@pytest.mark.parametrize("path", sorted(QUIET_PATHS))
def test_what_machines_ask_every_few_seconds_has_no_line(caplog: pytest.LogCaptureFixture, path: str) -> None:
    asyncio.run(ask(AccessLog(PlainTextResponse("")), path, method="GET"))
    assert caplog.records == []
