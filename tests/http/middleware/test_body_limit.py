"""A body is taken in whole, at a rate, within its limit and within a bound of memory, before anything else begins."""

import asyncio
import gzip
import zlib

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.content_encoding import Unpacker
from clip_retrieval.http.middleware.body_limit import BodyLimit
from clip_retrieval.http.middleware.intake import UNFINISHED_BYTES, Intake
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.policy import SMALL
from clip_retrieval.serving.traffic import Traffic
from tests.http.middleware.asgi import Answer, ask, echo_size

LIMIT = 100


def limit(
    app: ASGIApp = echo_size,
    *,
    max_body_bytes: int = LIMIT,
    intake: Intake | None = None,
    max_bytes: int = 2**20,
    patience_s: float = 5,
    min_rate: int = 1,
) -> ASGIApp:
    intake = intake or Intake(max_bytes=lambda: max_bytes, patience_s=patience_s, min_rate=min_rate)
    return RouteCheck(BodyLimit(app, traffic=Traffic(9, 9), intake=intake, max_body_bytes=max_body_bytes))


async def unreached(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the application was called")


# Bytes


def test_a_body_at_the_limit_passes() -> None:
    answer = asyncio.run(ask(limit(), headers={"Content-Length": "100"}, chunks=[b"x" * 60, b"x" * 40]))
    assert (answer.status, answer.body) == (200, b"100")


def test_a_body_declared_over_the_limit_is_refused_before_anything_of_it_is_read() -> None:
    chunks = [b"x" * 60, b"x" * 41]
    answer = asyncio.run(ask(limit(unreached), headers={"Content-Length": "101"}, chunks=chunks))
    assert answer.status == 413
    assert answer.error["detail"] == "the body is over the limit of 100 bytes"
    assert answer.left == chunks, "to read it would ask a client for it that waits for 100 Continue"


def test_a_body_of_unknown_length_is_refused_while_it_is_read() -> None:
    answer = asyncio.run(ask(limit(unreached), chunks=[b"x" * 30] * 9))
    assert answer.status == 413
    assert answer.error["error"] == "Request Entity Too Large"
    assert len(answer.left) == 5, "no more was read than shows that it is too large"


def test_a_length_that_is_declared_too_small_does_not_help() -> None:
    answer = asyncio.run(ask(limit(unreached), headers={"Content-Length": "1"}, chunks=[b"x" * 30] * 9))
    assert answer.status == 413


def test_a_path_may_have_a_smaller_limit() -> None:
    app, body = limit(max_body_bytes=2**20), [b"x" * (SMALL + 1)]
    assert asyncio.run(ask(app, chunks=body)).error["detail"] == f"the body is over the limit of {SMALL} bytes"
    assert asyncio.run(ask(app, "/search/text", chunks=body)).status == 200


@pytest.mark.parametrize("path", ["/artifact", "/compact", "/cache/clear"])
def test_paths_that_answer_under_overload_have_a_limit_too(path: str) -> None:
    assert asyncio.run(ask(limit(unreached), path, chunks=[b"x" * 30] * 9)).status == 413


def test_the_body_is_handed_on_in_one_message_and_after_it_what_comes_from_the_client() -> None:
    seen: list[Message] = []

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])
        await JSONResponse("done")(scope, receive, send)

    asyncio.run(ask(limit(reads), chunks=[b"ab", b"cd"], impatient=True))
    assert seen == [{"type": "http.request", "body": b"abcd", "more_body": False}, {"type": "http.disconnect"}]


def test_a_client_that_leaves_before_its_body_has_ended_gets_no_answer_and_starts_nothing() -> None:
    async def leaves() -> int:
        messages: list[Message] = [{"type": "http.request", "body": b"a", "more_body": True}]
        sent: list[Message] = []

        async def receive() -> Message:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/search", "query_string": b"", "headers": headers}
        await limit(unreached)(scope, receive, send)
        return len(sent)

    assert asyncio.run(leaves()) == 0


# Time


def test_a_body_that_stands_still_is_dropped() -> None:
    answer = asyncio.run(ask(limit(unreached, patience_s=0.1), chunks=[b"a", b"b"], pause_s=5))
    assert answer.status == 408
    assert answer.error["detail"].startswith("the body came too slowly: nothing came for 0.1 seconds; send it again")
    assert answer.headers["connection"] == "close"


def test_a_body_that_trickles_is_dropped_though_it_never_stands_still() -> None:
    app = limit(unreached, patience_s=0.3, min_rate=1000, max_body_bytes=10_000)
    answer = asyncio.run(ask(app, chunks=[b"x"] * 100, pause_s=0.1))
    assert answer.status == 408
    assert "bytes in 1 seconds" in answer.error["detail"]
    assert answer.left


def test_a_slow_body_that_keeps_the_rate_is_taken() -> None:
    app = limit(patience_s=0.5, min_rate=50)
    answer = asyncio.run(ask(app, chunks=[b"x" * 10] * 8, pause_s=0.1))
    assert (answer.status, answer.body) == (200, b"80")


# Memory


def test_the_oldest_body_on_its_way_gives_way_when_memory_is_short() -> None:
    async def scenario() -> None:
        intake = Intake(max_bytes=lambda: 2 * UNFINISHED_BYTES + 150, patience_s=5, min_rate=1)
        app = limit(intake=intake)
        stalled = asyncio.create_task(ask(app, chunks=[b"x" * 90, b"x"], pause_s=0.05))
        await asyncio.sleep(0.08)
        good = await ask(app, chunks=[b"x" * 80, b"x"], pause_s=0.01)
        assert (good.status, good.body) == (200, b"81")
        refused = await stalled
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert "memory" in refused.error["detail"]
        assert intake.held == 0

    asyncio.run(scenario())


def test_a_small_body_that_is_there_takes_one_message_and_no_turn_of_the_event_loop() -> None:
    async def scenario() -> Answer:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        asyncio.get_running_loop().call_soon(turn)
        answer = await ask(limit(), chunks=[b"{}"])
        assert turns == 0
        return answer

    assert asyncio.run(scenario()).status == 200


# Packed bodies


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = await request.body()
    assert request.headers["content-length"] == str(len(body))
    assert request.headers.get("content-encoding") in {None, "identity"}
    await JSONResponse(body.decode())(scope, receive, send)


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


PACKED = {
    "gzip": gzip.compress(b'{"text": "red"}', mtime=0),
    "x-gzip": gzip.compress(b'{"text": "red"}', mtime=0),
    "GZIP": gzip.compress(b'{"text": ', mtime=0) + gzip.compress(b'"red"}', mtime=0),
    "deflate": zlib.compress(b'{"text": "red"}'),
    "Deflate": raw_deflate(b'{"text": "red"}'),
    "identity": b'{"text": "red"}',
}


@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
def test_a_packed_body_is_unpacked_and_handed_on_as_if_it_had_been_sent_plain(coding: str, size: int) -> None:
    packed = PACKED[coding]
    chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
    headers = {"Content-Encoding": coding, "Content-Length": str(len(packed))}
    answer = asyncio.run(ask(limit(echo), headers=headers, chunks=chunks))
    assert (answer.status, answer.body) == (200, rb'"{\"text\": \"red\"}"')


@pytest.mark.parametrize(
    "packed", [gzip.compress(bytes(2**24)), gzip.compress(b"ab", mtime=0) * 5 + gzip.compress(bytes(200))]
)
def test_a_body_that_is_over_the_limit_when_it_is_unpacked_is_refused(packed: bytes) -> None:
    app = limit(unreached, max_body_bytes=SMALL if len(packed) > LIMIT * 10 else LIMIT)
    answer = asyncio.run(ask(app, headers={"Content-Encoding": "gzip"}, chunks=[packed]))
    assert answer.status == 413


def test_a_body_is_unpacked_no_further_than_shows_that_it_is_too_large() -> None:
    """A bomb of 16 MiB; the limit is 100 bytes, and so is what is unpacked of it."""
    bomb = gzip.compress(bytes(2**24))
    assert len(Unpacker("gzip").unpack(bomb, 101)) == 101


@pytest.mark.parametrize(
    ("coding", "packed", "detail"),
    [
        ("gzip", b'{"text": "red"}', "the body is not gzip, which its Content-Encoding says"),
        ("gzip", PACKED["gzip"][:-5], "the gzip body is cut off"),
        ("deflate", PACKED["deflate"] + b"x", "there is something behind the end of the deflate body"),
    ],
)
def test_a_packed_body_that_is_not_right_is_400_in_words(coding: str, packed: bytes, detail: str) -> None:
    answer = asyncio.run(ask(limit(unreached), headers={"Content-Encoding": coding}, chunks=[packed]))
    assert (answer.status, answer.error["detail"]) == (400, detail)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "utf-8"])
def test_another_coding_is_415_and_says_what_is_read(coding: str) -> None:
    answer = asyncio.run(ask(limit(unreached), headers={"Content-Encoding": coding}))
    assert answer.status == 415
    assert answer.error["detail"] == (
        f"the Content-Encoding is {coding}; this service reads gzip, deflate, or a plain body"
    )
    assert answer.headers["accept-encoding"] == "gzip, deflate"


def test_codings_on_several_lines_are_one_list() -> None:
    headers = {"Content-Encoding": "gzip", "content-encoding": "identity"}
    answer = asyncio.run(ask(limit(unreached), headers=headers))
    assert (answer.status, "the Content-Encoding is gzip, identity;" in answer.error["detail"]) == (415, True)
