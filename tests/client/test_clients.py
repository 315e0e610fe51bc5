"""Both clients over a hand-made transport: what they send, when they send it again, and which error they raise.

No server and no waiting: ``Network`` answers, and the seconds that a client would sleep are written down.
"""

import asyncio
import base64
import inspect
import io
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from clip_retrieval.client import AsyncClient, Client, image, image_id, picture, text
from clip_retrieval.client import clients as client
from clip_retrieval.client.clients import DEFAULT_RETRIES, DEFAULT_TIMEOUT
from clip_retrieval.client.retries import PATIENT, AsyncRetryTransport, Retries, RetryTransport
from clip_retrieval.contract.answers import (
    BrowseAnswer,
    CaptionResult,
    CaptionsAnswer,
    ImageEmbedding,
    ImageResult,
    ImagesAnswer,
    ListedImage,
    SearchAnswer,
    SearchBatchAnswer,
    TextEmbedding,
)
from clip_retrieval.contract.changes import Changed, ChangesAnswer, delete
from clip_retrieval.contract.clicks import ClickLogged
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo, ImagesPage
from clip_retrieval.contract.queries import search_request
from clip_retrieval.contract.status import ArtifactStatus, CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.errors import (
    Forbidden,
    InvalidChange,
    InvalidQuery,
    KeysError,
    Overloaded,
    RequestRejected,
    ServerFailure,
    ServiceError,
    Unauthorized,
    Unreachable,
)
from tests.samples import png, square

RED = png(square("red"))

IMAGE_RESULT = {
    "rank": 1,
    "image_id": "red",
    "image_path": "red.png",
    "similarity_score": 0.9,
    "confidence": 1.0,
    "captions": ["a red square"],
    "width": 4,
    "height": 3,
    "metadata": {"shade": "bright"},
}
CAPTION_RESULT = {
    "rank": 1,
    "caption": "a red square",
    "caption_id": "red#0",
    "image_id": "red",
    "image_path": "red.png",
    "similarity_score": 0.9,
    "confidence": 1.0,
}
FOUND = {"query": "red", "query_type": "text", "total_results": 1, "query_time_ms": 1.5, "cached": False}
IMAGES = {**FOUND, "results": [IMAGE_RESULT]}
CAPTIONS = {**FOUND, "results": [CAPTION_RESULT]}
VECTOR = {"embedding": [1.0, 0.0], "dimension": 2}
HEALTH = {
    "status": "healthy",
    "timestamp": "2030-01-01T00:00:00Z",
    "model_loaded": True,
    "indexes_loaded": True,
    "uptime_seconds": 1.0,
    "artifact": "clip-retrieval:1",
}
INFO = {
    "name": "bento-clip",
    "version": "1",
    "model": "fake",
    "images": 1,
    "captions": 1,
    "artifact": "clip-retrieval:1",
    "links": {},
    "notes": [],
}
STATS = {
    "uptime_seconds": 1.0,
    "queries": {"search_images": 1},
    "cache_hits": 0,
    "cache_misses": 1,
    "cache_size": 1,
    "latency_ms": {"total": {"count": 1, "p50": 1, "p95": 1, "p99": 1}},
}
PAGE = {"total_results": 1, "offset": 0, "next_offset": 1, "query_time_ms": 1.5, "cached": False}
FOUND_IMAGES = {**PAGE, "target": "images", "results": [IMAGE_RESULT]}
LISTED_IMAGE = {name: value for name, value in IMAGE_RESULT.items() if name in ListedImage.model_fields}
FOUND_LISTED = {**PAGE, "target": "images", "results": [LISTED_IMAGE]}
FOUND_CAPTIONS = {**PAGE, "target": "captions", "results": [CAPTION_RESULT]}
BATCH = {
    "answers": [
        {"status": 200, "answer": FOUND_IMAGES},
        {"status": 422, "error": {"error": "A kind", "detail": "what is wrong"}},
    ]
}
FIELDS = {
    "fields": [
        {"name": "year", "type": "number", "count": 3, "values": [], "min": 1999, "max": 2001},
        {"name": "flag", "type": "boolean", "count": 1, "values": [{"value": True, "count": 1}]},
    ]
}
IMAGE = {
    "image_id": "red",
    "image_path": "red.png",
    "width": 4,
    "height": 3,
    "split": "test",
    "captions": [],
    "metadata": {"year": 1999, "place": None},
}
STATUS = {"artifact": "clip-retrieval:1", "version": "1", "state": "serving"}
CHANGED = {"image_id": "red", "sequence": 3, "created": True, "changed": True, "etag": "e1"}
CHANGES = {
    "sequence": 3,
    "results": [{"status": 200, "result": CHANGED}, {"status": 404, "error": {"error": "A", "detail": "b"}}],
}
LISTED = {"images": [IMAGE, {**IMAGE, "image_id": "blue"}], "next": "blue"}
CLEARED = {"message": "1 dropped", "previous_cache_size": 1, "current_cache_size": 0}


class Network:
    """Answers requests with what it was given, in turn; the last again and again. Keeps what was sent and slept."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def clock(self) -> float:
        return sum(self.slept)

    @property
    def request(self) -> httpx.Request:
        assert len(self.requests) == 1
        return self.requests[0]


Ask = Callable[..., Any]
ONCE = Retries(attempts=1)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Calls one method of one of the clients over a network: ``ask(network, "search_images", "red", k=3)``.

    The client itself sends once; the transport below it sends again and writes its waits down.
    """

    def ask_sync(network: Network, method: str, *args: Any, retries: Retries = DEFAULT_RETRIES, **options: Any) -> Any:
        transport = RetryTransport(
            retries, httpx.MockTransport(network), sleep=network.slept.append, clock=network.clock
        )
        timeout = options.pop("timeout", DEFAULT_TIMEOUT)
        with Client("http://service", retries=ONCE, transport=transport, timeout=timeout) as asked:
            return getattr(asked, method)(*args, **options)

    def ask_async(network: Network, method: str, *args: Any, retries: Retries = DEFAULT_RETRIES, **options: Any) -> Any:
        async def sleep(seconds: float) -> None:
            network.slept.append(seconds)

        async def run() -> Any:
            transport = AsyncRetryTransport(retries, httpx.MockTransport(network), sleep=sleep, clock=network.clock)
            timeout = options.pop("timeout", DEFAULT_TIMEOUT)
            async with AsyncClient("http://service", retries=ONCE, transport=transport, timeout=timeout) as asked:
                return await getattr(asked, method)(*args, **options)

        return asyncio.run(run())

    return ask_sync if request.param == "sync" else ask_async


def ok(body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def error(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": "A kind", "detail": "what is wrong"}, headers=headers)


def uploaded(request: httpx.Request) -> Message:
    """The one part of a multipart request."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + request.content).get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 1
    assert isinstance(parts[0], Message)
    return parts[0]


# Keys and headers


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["http://service", "http://user:password@service"])
def test_a_key_and_headers_go_with_every_request(make: type[Client] | type[AsyncClient], url: str) -> None:
    """A password in the URL is for a proxy in front, and takes the place of no key."""
    network = Network(ok(HEALTH))
    options: dict[str, Any] = {
        "key": " bc_key\n",
        "headers": {"X-Team": "a"},
        "transport": httpx.MockTransport(network),
    }
    asked = make(url, **options)
    answer = asked.health()
    if inspect.isawaitable(answer):
        asyncio.run(answer)
    headers = network.request.headers
    assert (headers["X-API-Key"], headers["X-Team"], headers["Accept"]) == ("bc_key", "a", "application/json")
    assert headers.get("Authorization", "").startswith("Basic ") == ("@" in url)


@pytest.mark.parametrize("key", [None, "", " "])
def test_without_a_key_none_is_sent(key: str | None) -> None:
    network = Network(ok(HEALTH))
    with Client("http://service", key=key, transport=httpx.MockTransport(network)) as asked:
        asked.health()
    assert not {"x-api-key", "authorization"} & network.request.headers.keys()


@pytest.mark.parametrize("key", ["bc_a b", "bc_ä", "bc_a\nX-Evil: 1", "bc_\x00"])
@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_a_key_that_cannot_be_one_is_said_and_not_shown(make: type[Client] | type[AsyncClient], key: str) -> None:
    with pytest.raises(KeysError, match="look for a space, a quote or a line break") as raised:
        make("http://service", key=key)
    assert key not in str(raised.value)


# Every endpoint


@pytest.mark.parametrize(
    ("method", "args", "answer", "model", "verb", "path"),
    [
        ("search_images", ("red",), IMAGES, ImagesAnswer, "POST", "/search/images"),
        ("search_captions", (RED,), CAPTIONS, CaptionsAnswer, "POST", "/search/text"),
        ("search_similar", (RED,), IMAGES, ImagesAnswer, "POST", "/search/similar"),
        ("encode_text", ("red",), {**VECTOR, "text": "red"}, TextEmbedding, "POST", "/encode/text"),
        ("encode_image", (RED,), {**VECTOR, "filename": "x"}, ImageEmbedding, "POST", "/encode/image"),
        ("search", ([text("red")],), FOUND_IMAGES, SearchAnswer, "POST", "/search"),
        ("browse", (), FOUND_LISTED, BrowseAnswer, "POST", "/search"),
        ("search_batch", ([search_request([text("red")])],), BATCH, SearchBatchAnswer, "POST", "/search/batch"),
        ("click", ("0" * 32, "red"), {"message": "logged"}, ClickLogged, "POST", "/clicks"),
        ("fields", (), FIELDS, FieldsAnswer, "GET", "/fields"),
        ("image", ("red",), IMAGE, ImageInfo, "GET", "/images/red"),
        ("info", (), INFO, ServiceInfo, "GET", "/"),
        ("health", (), HEALTH, Health, "GET", "/health"),
        ("stats", (), STATS, Stats, "GET", "/stats"),
        ("clear_cache", (), CLEARED, CacheCleared, "POST", "/cache/clear"),
        ("artifact", (), STATUS, ArtifactStatus, "GET", "/artifact"),
        ("swap", ("clip-retrieval:1",), STATUS, ArtifactStatus, "POST", "/artifact"),
        ("compact", (), STATUS, ArtifactStatus, "POST", "/compact"),
        ("put_image", ("red", RED), CHANGED, Changed, "PUT", "/images/red"),
        ("add_image", (RED,), CHANGED, Changed, "POST", "/images"),
        ("delete_image", ("red",), CHANGED, Changed, "DELETE", "/images/red"),
        ("change", ([delete("red")],), CHANGES, ChangesAnswer, "POST", "/changes"),
        ("images_page", (), LISTED, ImagesPage, "GET", "/images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_method_asks_its_endpoint_once_and_answers_with_its_model(
    ask: Ask, method: str, args: tuple[Any, ...], answer: dict[str, Any], model: type, verb: str, path: str
) -> None:
    network = Network(ok(answer))
    assert ask(network, method, *args) == model(**answer)
    assert (network.request.method, network.request.url.path) == (verb, path)
    assert network.slept == []


def test_fields_are_asked_for_beside_a_filter(ask: Ask) -> None:
    network = Network(ok(FIELDS))
    assert ask(network, "fields", "year >= 2020 and place = Paris") == FieldsAnswer.model_validate(FIELDS)
    assert json.loads(network.request.url.params["where"]) == {"year": {"gte": "2020"}, "place": "Paris"}


def test_a_thumbnail_is_the_bytes_of_its_file(ask: Ask) -> None:
    network = Network(httpx.Response(200, content=b"webp"))
    assert ask(network, "thumbnail", "a/b 1.jpg", "large") == b"webp"
    assert network.request.url.raw_path == b"/thumbnails/large/a%2Fb%201%2Ejpg"


def test_an_original_is_the_bytes_of_its_file(ask: Ask) -> None:
    network = Network(httpx.Response(200, content=b"jpeg"))
    assert ask(network, "original", "a/b 1.jpg") == b"jpeg"
    assert network.request.url.raw_path == b"/originals/a%2Fb%201%2Ejpg"
    with pytest.raises(RequestRejected, match="what is wrong"):
        ask(Network(error(404)), "original", "red")


def test_a_thumbnail_that_there_is_not_is_an_error_as_everywhere(ask: Ask) -> None:
    with pytest.raises(RequestRejected, match="what is wrong"):
        ask(Network(error(404)), "thumbnail", "red")
    with pytest.raises(Unreachable, match="GET /thumbnails/small/red: no answer"):
        ask(Network(httpx.ConnectError("refused")), "thumbnail", "red", retries=ONCE)


def test_a_swap_that_takes_long_is_asked_for_until_it_is_done(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SWAP_POLL_S", 0)
    swapping = {**STATUS, "state": "swapping"}
    network = Network(httpx.Response(202, json=swapping), ok(swapping), ok({**STATUS, "version": "2"}))
    assert ask(network, "swap", "clip-retrieval:2", force=True).version == "2"
    asked = [(request.method, request.url.path) for request in network.requests]
    assert asked == [("POST", "/artifact"), ("GET", "/artifact"), ("GET", "/artifact")]
    assert json.loads(network.requests[0].content) == {"artifact": "clip-retrieval:2", "force": True}


def test_a_swap_that_is_refused_while_nobody_waits_is_an_error(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SWAP_POLL_S", 0)
    refused = {**STATUS, "state": "refused", "reason": "it falls short"}
    network = Network(httpx.Response(202, json={**STATUS, "state": "swapping"}), ok(refused))
    with pytest.raises(RequestRejected, match="it falls short") as caught:
        ask(network, "swap", "clip-retrieval:2")
    assert caught.value.status == 409


def test_a_text_is_sent_as_json(ask: Ask) -> None:
    network = Network(ok(IMAGES))
    ask(network, "search_images", "a red panda", k=3)
    assert json.loads(network.request.content) == {"text": "a red panda", "k": 3}
    assert network.request.headers["Content-Type"] == "application/json"


def test_a_text_to_encode_is_sent_alone(ask: Ask) -> None:
    network = Network(ok({**VECTOR, "text": "red"}))
    ask(network, "encode_text", "red")
    assert json.loads(network.request.content) == {"text": "red"}


def test_the_language_of_a_text_is_sent_with_it(ask: Ask) -> None:
    network = Network(ok(IMAGES), ok({**VECTOR, "text": "rot"}), ok(FOUND_IMAGES))
    ask(network, "search_images", "rot", language="deu_Latn")
    ask(network, "encode_text", "rot", language="deu_Latn")
    ask(network, "search", [text("rot", language="deu_Latn"), text("blue")])
    assert [json.loads(request.content) for request in network.requests] == [
        {"text": "rot", "k": 5, "language": "deu_Latn"},
        {"text": "rot", "language": "deu_Latn"},
        {"queries": [{"text": "rot", "language": "deu_Latn"}, {"text": "blue"}]},
    ]


def test_browsing_sends_a_filter_and_an_order_and_no_query(ask: Ask) -> None:
    network = Network(ok(FOUND_LISTED))
    ask(network, "browse", where="place != Paris", sort="year", k=3)
    expected = {"where": {"not": [{"place": "Paris"}]}, "sort": {"field": "year"}, "k": 3}
    assert json.loads(network.request.content) == expected
    network = Network(ok(FOUND_LISTED))
    ask(network, "browse")
    assert json.loads(network.request.content)["sort"] == {}, "a service would refuse a search for nothing"
    with pytest.raises(InvalidQuery, match="browse shows images without a query"):
        ask(network, "search", [])


def test_the_mode_is_sent_where_it_is_not_the_usual_one(ask: Ask) -> None:
    network = Network(ok(IMAGES), ok(FOUND_IMAGES), ok(IMAGES), ok(FOUND_IMAGES))
    ask(network, "search_images", "red", mode="both")
    answer = ask(network, "search", [text("red")], mode="words")
    ask(network, "search_images", "red", mode="vector")
    ask(network, "search", [text("red")])
    assert [json.loads(request.content).get("mode") for request in network.requests] == ["both", "words", None, None]
    assert answer.results[0].found_by == "vector", "a service before this field found by vectors alone"
    with pytest.raises(InvalidQuery, match="mode"):
        ask(network, "search", [text("red")], mode="all")


def test_the_short_searches_send_a_filter_as_a_tree(ask: Ask) -> None:
    """An upload has it in its form, as JSON. A text that is no filter is refused before anything is sent."""
    tree = {"not": [{"place": "Paris"}], "year": {"gte": 2020}}
    network = Network(ok(IMAGES))
    ask(network, "search_images", "red", where="place != Paris")
    assert json.loads(network.request.content)["where"] == {"not": [{"place": "Paris"}]}
    network = Network(ok(IMAGES))
    ask(network, "search_similar", RED, where=tree, min_confidence=0.35)
    assert dict(network.request.url.params) == {"k": "5", "min_confidence": "0.35"}, "a head has no room for long ones"
    sent = network.request.content.partition(b'name="where"\r\n\r\n')[2].partition(b"\r\n")[0]
    assert json.loads(sent) == tree
    with pytest.raises(InvalidQuery, match="where: position 8: a value must follow ="):
        ask(network, "search_images", "red", where="place =")


@pytest.mark.parametrize(("method", "answer"), [("search_captions", CAPTIONS), ("search_similar", IMAGES)])
def test_an_image_is_uploaded_as_the_field_file_with_k_as_parameter(
    ask: Ask, method: str, answer: dict[str, Any]
) -> None:
    network = Network(ok(answer))
    ask(network, method, RED, k=7)
    assert dict(network.request.url.params) == {"k": "7"}
    part = uploaded(network.request)
    assert part.get_param("name", header="Content-Disposition") == "file"
    assert part.get_payload(decode=True) == RED


def test_five_results_are_asked_for_unless_said_otherwise(ask: Ask) -> None:
    network = Network(ok(IMAGES))
    ask(network, "search_images", "red")
    assert json.loads(network.request.content)["k"] == 5


# Composed queries


def test_a_search_sends_its_parts_and_what_differs_from_the_defaults(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    network = Network(ok(FOUND_CAPTIONS))
    parts = [text("a dog"), image(path, 0.5), image(RED, 2), image_id("owl/1", -1)]
    where = {"year": {"gte": 2020, "in": [2021, None]}, "place": None, "indoor": False}
    found = ask(network, "search", parts, target="captions", k=7, offset=14, min_score=0.1, dedupe=True, where=where)
    encoded = base64.b64encode(RED).decode()
    assert json.loads(network.request.content) == {
        "queries": [
            {"text": "a dog"},
            {"image": encoded, "weight": 0.5},
            {"image": encoded, "weight": 2},
            {"image_id": "owl/1", "weight": -1},
        ],
        "target": "captions",
        "k": 7,
        "offset": 14,
        "min_score": 0.1,
        "dedupe": True,
        "where": where,
    }
    assert isinstance(found.results[0], CaptionResult)


def test_a_plain_search_sends_nothing_but_its_parts(ask: Ask) -> None:
    network = Network(ok(FOUND_IMAGES))
    found = ask(network, "search", [text("red")])
    assert json.loads(network.request.content) == {"queries": [{"text": "red"}]}
    assert isinstance(found.results[0], ImageResult)


def test_a_batch_sends_its_searches_in_order_and_brings_each_outcome(ask: Ask) -> None:
    network = Network(ok(BATCH))
    answer = ask(network, "search_batch", [search_request([text("a")], k=2), search_request([image_id("b")])])
    assert json.loads(network.request.content) == {
        "searches": [{"queries": [{"text": "a"}], "k": 2}, {"queries": [{"image_id": "b"}]}]
    }
    good, bad = answer.answers
    assert (good.status, good.answer.results[0].image_id, good.error) == (200, "red", None)
    assert (bad.status, bad.answer, bad.error.detail) == (422, None, "what is wrong")


@pytest.mark.parametrize("options", [{"k": 51}, {"offset": -1}, {"min_score": 2}, {"where": {"a": {"like": "b"}}}])
def test_what_is_out_of_bounds_is_not_sent(ask: Ask, options: dict[str, Any]) -> None:
    network = Network(ok(FOUND_IMAGES))
    with pytest.raises(InvalidQuery, match=next(iter(options))):
        ask(network, "search", [text("red")], **options)
    assert network.requests == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: text(" "),
        lambda: text("red", 0),
        lambda: text("red", 11),
        lambda: image_id(""),
        lambda: image(b""),
        lambda: text("red", float("nan")),
    ],
)
def test_a_part_that_no_service_takes_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidQuery):
        make()


@pytest.mark.parametrize("identity", ["a/b.png", "../x", ".", "a b?c#d%e", "ü🦊", "//"])
def test_an_image_id_of_any_characters_reaches_the_service(ask: Ask, identity: str) -> None:
    network = Network(ok(IMAGE))
    ask(network, "image", identity)
    assert network.request.url.path == f"/images/{identity}"
    assert network.request.url.query == b""


def test_the_former_name_of_image_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="picture is now called image"):
        assert picture(RED, 0.5) == image(RED, 0.5)


# Every kind of image


@pytest.mark.parametrize("kind", ["str", "Path", "bytes", "open file", "BytesIO"])
def test_an_image_may_be_a_path_bytes_or_a_file(ask: Ask, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    network = Network(ok(IMAGES))
    if kind == "open file":
        with path.open("rb") as file:
            ask(network, "search_similar", file)
    else:
        images = {"str": str(path), "Path": path, "bytes": RED, "BytesIO": io.BytesIO(RED)}
        ask(network, "search_similar", images[kind])
    part = uploaded(network.request)
    assert part.get_payload(decode=True) == RED
    assert part.get_filename() == ("image" if kind in {"bytes", "BytesIO"} else "red.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "HSV", "LAB"])
def test_an_image_may_be_a_pil_image_of_any_mode(ask: Ask, mode: str) -> None:
    network = Network(ok(IMAGES))
    ask(network, "search_similar", Image.new(mode, (4, 3)))
    sent = uploaded(network.request).get_payload(decode=True)
    assert isinstance(sent, bytes)
    with Image.open(io.BytesIO(sent)) as image:
        assert (image.format, image.size) == ("PNG", (4, 3))


def test_a_pil_image_keeps_its_pixels(ask: Ask) -> None:
    network = Network(ok(IMAGES))
    ask(network, "search_similar", square("magenta", "soft"))
    assert uploaded(network.request).get_payload(decode=True) == png(square("magenta", "soft"))


def test_a_file_that_is_missing_is_named_and_nothing_is_sent(ask: Ask, tmp_path: Path) -> None:
    network = Network(ok(IMAGES))
    with pytest.raises(FileNotFoundError, match=r"No such file.*absent\.png"):
        ask(network, "search_similar", tmp_path / "absent.png")
    assert network.requests == []


# Sending again


@pytest.mark.parametrize(
    "hindrance",
    [
        error(429),
        error(503),
        httpx.ConnectError("connection refused"),
        httpx.ConnectTimeout("no answer to SYN"),
        httpx.ReadError("connection reset"),
        httpx.RemoteProtocolError("server disconnected"),
    ],
    ids=lambda h: str(h.status_code) if isinstance(h, httpx.Response) else type(h).__name__,
)
def test_overload_and_broken_connections_are_tried_again(ask: Ask, hindrance: httpx.Response | Exception) -> None:
    network = Network(hindrance, hindrance, ok(IMAGES))
    assert ask(network, "search_images", "red").total_results == 1
    assert len(network.requests) == 3
    assert len({request.content for request in network.requests}) == 1
    assert len(network.slept) == 2


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 500, 502, 504])
def test_no_other_status_is_tried_again(ask: Ask, status: int) -> None:
    network = Network(error(status), ok(IMAGES))
    with pytest.raises(ServiceError):
        ask(network, "search_images", "red")
    assert len(network.requests) == 1
    assert network.slept == []


@pytest.mark.parametrize("timeout", [httpx.ReadTimeout("slow"), httpx.WriteTimeout("slow"), httpx.PoolTimeout("full")])
def test_a_timeout_is_not_tried_again(ask: Ask, timeout: Exception) -> None:
    network = Network(timeout, ok(IMAGES))
    with pytest.raises(Unreachable, match=r"POST /search/images: no answer \((slow|full)\)"):
        ask(network, "search_images", "red")
    assert len(network.requests) == 1


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("hindrance", [error(503), httpx.ConnectError("refused")], ids=["503", "refused"])
def test_attempts_are_bounded(ask: Ask, attempts: int, hindrance: httpx.Response | Exception) -> None:
    network = Network(hindrance)
    with pytest.raises((Overloaded, Unreachable)):
        ask(network, "search_images", "red", retries=Retries(attempts=attempts))
    assert len(network.requests) == attempts
    assert len(network.slept) == attempts - 1


def test_there_is_at_least_one_attempt() -> None:
    with pytest.raises(ValueError, match="attempts must be at least 1, not 0"):
        Retries(attempts=0)


def test_waits_double_up_to_a_limit_with_jitter_of_at_most_half(ask: Ask) -> None:
    network = Network(error(503))
    with pytest.raises(Overloaded):
        ask(network, "search_images", "red", retries=Retries(attempts=6, base_s=1, max_s=5))
    for waited, most in zip(network.slept, [1, 2, 4, 5, 5], strict=True):
        assert most / 2 <= waited <= most


def test_the_client_waits_as_long_as_the_service_says(ask: Ask) -> None:
    network = Network(error(503, **{"Retry-After": "2"}), error(429, **{"Retry-After": "17"}), ok(IMAGES))
    ask(network, "search_images", "red", retries=Retries(max_s=5))
    assert network.slept == [2, 17]


def test_waits_together_stay_within_the_time_limit_for_an_answer(ask: Ask) -> None:
    """To come earlier than the service says would be in vain, so there is no shorter wait either."""
    network = Network(*[error(429, **{"Retry-After": "20"})] * 3)
    with pytest.raises(Overloaded):
        ask(network, "search_images", "red", timeout=30)
    assert network.slept == [20]
    network = Network(error(429, **{"Retry-After": "31"}))
    with pytest.raises(Overloaded):
        ask(network, "search_images", "red", timeout=httpx.Timeout(5, read=30))
    assert network.slept == []


def test_patience_takes_the_place_of_the_time_limit(ask: Ask) -> None:
    network = Network(error(429, **{"Retry-After": "300"}), error(429, **{"Retry-After": "300"}), ok(IMAGES))
    ask(network, "search_images", "red", retries=PATIENT, timeout=5)
    assert network.slept == [300, 300]
    network = Network(error(429, **{"Retry-After": "300"}), error(429, **{"Retry-After": "301"}))
    with pytest.raises(Overloaded):
        ask(network, "search_images", "red", retries=PATIENT, timeout=5)
    assert network.slept == [300]


@pytest.mark.parametrize("call", ["put_image", "add_image", "patch_image", "delete_image", "file"])
def test_a_change_of_an_id_that_is_not_utf_8_is_refused_before_it_is_sent(ask: Ask, tmp_path: Path, call: str) -> None:
    network, name = Network(ok({})), "latin\udce9.jpg"
    (tmp_path / name).write_bytes(RED)
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "put_image": ((name, RED), {}),
        "add_image": ((RED,), {"image_id": name}),
        "patch_image": ((name,), {"captions": []}),
        "delete_image": ((name,), {}),
        "file": ((tmp_path / name,), {}),
    }
    positional, named = arguments[call]
    with pytest.raises(InvalidChange, match=r"'latin\\udce9.jpg' is not UTF-8; rename the file"):
        ask(network, "add_image" if call == "file" else call, *positional, **named)
    assert network.requests == []


def test_a_query_needs_no_name_of_its_file(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "latin\udce9.jpg").write_bytes(RED)
    network = Network(ok(IMAGES))
    assert ask(network, "search_similar", tmp_path / "latin\udce9.jpg").total_results == 1
    assert uploaded(network.request).get_filename() == "latin?.jpg"


def test_patience_is_shared_by_all_requests_until_the_service_takes_one() -> None:
    """A limit that refuses one request refuses the next: ten minutes for each of a thousand files would be a week."""
    limit = error(429, **{"Retry-After": "300"})
    network = Network(limit, limit, ok(IMAGES), limit, limit, limit)

    def in_turn(client: Client) -> list[object]:
        outcomes: list[object] = []
        for _ in range(4):
            try:
                outcomes.append(client.search_images("red").total_results)
            except Overloaded:
                outcomes.append(len(network.requests))
        return outcomes

    said: list[str] = []
    retries = replace(PATIENT, on_wait=lambda refusal: said.append(refusal.json()["detail"]))
    sleeping = RetryTransport(retries, httpx.MockTransport(network), sleep=network.slept.append, clock=network.clock)
    with Client("http://service", retries=ONCE, transport=sleeping) as client:
        assert in_turn(client) == [1, 6, 7, 8], "the last two are sent once and wait no more"
    assert network.slept == [300] * 4
    assert said == ["what is wrong"] * 2, "once for each time that waiting begins"


def test_a_patient_command_does_not_wait_long_for_a_service_that_is_not_there(ask: Ask) -> None:
    network = Network(httpx.ConnectError("refused"))
    with pytest.raises(Unreachable):
        ask(network, "search_images", "red", retries=PATIENT)
    assert len(network.requests) == 4


def test_without_a_time_limit_every_wait_is_waited(ask: Ask) -> None:
    network = Network(error(429, **{"Retry-After": "86400"}), ok(IMAGES))
    ask(network, "search_images", "red", timeout=None)
    assert network.slept == [86400]


@pytest.mark.parametrize("header", ["soon", "-1", "Fri, 31 Dec 1999 23:59:59 GMT", "", "\u00b2"])
def test_a_retry_after_that_is_no_number_of_seconds_leaves_the_back_off(ask: Ask, header: str) -> None:
    overloaded = httpx.Response(503, headers=[(b"Retry-After", header.encode("latin-1"))])
    network = Network(overloaded, ok(IMAGES))
    ask(network, "search_images", "red", retries=Retries(base_s=0.2))
    assert 0.1 <= network.slept[0] <= 0.2


class Streamed(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Reads each request piece by piece, as a connection does; answers the first with ``first``, then with images."""

    def __init__(self, first: httpx.Response) -> None:
        self.answers = [first, ok(IMAGES)]
        self.sent: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.sent.append(b"".join(request.stream))
        return self.answers.pop(0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.sent.append(b"".join([piece async for piece in request.stream]))
        return self.answers.pop(0)


class BrokenBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b"{"
        raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        raise httpx.ReadError("connection reset")


def search_similar(transport: Streamed, kind: str) -> ImagesAnswer:
    """Ask through the client's own retries, which wait for 0 seconds here."""
    at_once = Retries(base_s=0)
    if kind == "sync":
        with Client("http://service", retries=at_once, transport=transport) as asked:
            return asked.search_similar(RED)

    async def run() -> ImagesAnswer:
        async with AsyncClient("http://service", retries=at_once, transport=transport) as asked:
            return await asked.search_similar(RED)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("broken_body", [False, True], ids=["503", "broken body"])
def test_a_client_sends_the_whole_upload_again_through_the_transport_that_it_is_given(
    broken_body: bool, kind: str
) -> None:
    transport = Streamed(httpx.Response(200, stream=BrokenBody()) if broken_body else error(503))
    assert search_similar(transport, kind).total_results == 1
    assert len(transport.sent) == 2
    assert RED in transport.sent[0]
    assert transport.sent[0] == transport.sent[1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_without_a_transport_uses_the_proxy_of_the_environment(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        asked: list[bytes] = []

        def answer() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(1 << 16))
                body = json.dumps(HEALTH).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        thread = threading.Thread(target=answer)
        thread.start()
        if kind == "sync":
            with Client("http://service.invalid", retries=ONCE) as sync:
                assert sync.health() == Health.model_validate(HEALTH)
        else:

            async def run() -> Health:
                async with AsyncClient("http://service.invalid", retries=ONCE) as asynchronous:
                    return await asynchronous.health()

            assert asyncio.run(run()) == Health.model_validate(HEALTH)
        thread.join()
    assert asked[0].startswith(b"GET http://service.invalid/health ")


# Errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRejected),
        (401, Unauthorized),
        (403, Forbidden),
        (404, RequestRejected),
        (413, RequestRejected),
        (415, RequestRejected),
        (422, RequestRejected),
        (429, Overloaded),
        (503, Overloaded),
        (500, ServerFailure),
        (504, ServerFailure),
    ],
)
def test_an_error_tells_the_status_and_what_the_service_said(ask: Ask, status: int, kind: type[ServiceError]) -> None:
    with pytest.raises(ServiceError) as caught:
        ask(Network(error(status)), "search_images", "red")
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert str(caught.value) == "A kind: what is wrong"


def test_an_error_without_the_services_body_tells_the_status_line(ask: Ask) -> None:
    with pytest.raises(RequestRejected, match=r"^404 Not Found$"):
        ask(Network(httpx.Response(404, text="<h1>nginx</h1>")), "health")


def test_no_connection_is_unreachable_with_the_reason_and_no_status(ask: Ask) -> None:
    with pytest.raises(Unreachable, match=r"^GET /health: no answer \(connection refused\)$") as caught:
        ask(Network(httpx.ConnectError("connection refused")), "health")
    assert caught.value.status is None


def test_a_reason_without_words_is_named_by_its_kind(ask: Ask) -> None:
    with pytest.raises(Unreachable, match="ReadTimeout"):
        ask(Network(httpx.ReadTimeout("")), "health")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<h1>It works!</h1>"),
        httpx.Response(200, text=""),
        httpx.Response(204),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"status": "splendid"}),
        httpx.Response(301, headers={"Location": "https://elsewhere/health"}),
        httpx.DecodingError("not gzip"),
    ],
    ids=["html", "empty", "no content", "list", "other fields", "redirect", "bad encoding"],
)
def test_an_answer_that_is_not_of_this_service_is_a_server_failure(
    ask: Ask, answer: httpx.Response | Exception
) -> None:
    with pytest.raises(ServerFailure):
        ask(Network(answer), "health")


# The two clients are one


def public(kind: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_the_clients_have_the_same_methods_with_the_same_signatures_and_docstrings() -> None:
    sync, asynchronous = public(Client), public(AsyncClient)
    assert sync.pop("close") is not None
    assert asynchronous.pop("aclose") is not None
    assert sync.keys() == asynchronous.keys()
    iterators = sync.pop("images"), asynchronous.pop("images")
    assert inspect.isgeneratorfunction(iterators[0])
    assert inspect.isasyncgenfunction(iterators[1])
    assert len({str(inspect.signature(one).parameters) for one in iterators}) == 1
    assert len({inspect.getdoc(one) for one in iterators}) == 1
    for name, method in sync.items():
        assert inspect.signature(method) == inspect.signature(asynchronous[name])
        assert inspect.getdoc(method) == inspect.getdoc(asynchronous[name]) != ""
        assert inspect.iscoroutinefunction(asynchronous[name])
        assert not inspect.iscoroutinefunction(method)


def test_the_clients_are_made_with_the_same_arguments() -> None:
    sync, asynchronous = (inspect.signature(kind).parameters for kind in (Client, AsyncClient))
    assert list(sync) == list(asynchronous) == ["url", "key", "headers", "timeout", "retries", "transport"]
    assert {n: p.default for n, p in sync.items()} == {n: p.default for n, p in asynchronous.items()}


def test_the_public_names_are_these() -> None:
    clients = {"AsyncClient", "Client", "DEFAULT_TIMEOUT", "ImageInput", "Retries"}
    assert set(client.__all__) == clients | {"image_id", "image", "text"}
    assert all(hasattr(client, name) for name in client.__all__)
    assert public(Client).keys() == {
        "search_images",
        "search_captions",
        "search_similar",
        "search",
        "browse",
        "search_batch",
        "click",
        "fields",
        "image",
        "thumbnail",
        "original",
        "encode_text",
        "encode_image",
        "info",
        "health",
        "stats",
        "clear_cache",
        "artifact",
        "swap",
        "compact",
        "put_image",
        "add_image",
        "patch_image",
        "delete_image",
        "change",
        "images_page",
        "images",
        "close",
    }


@pytest.mark.parametrize(
    "url",
    ["http://localhost:430O", "http://[::1", "localhost:3000", "", "ftp://host", "http://", "\udcff"],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_address_of_a_service_is_refused_in_words(kind: type[Client | AsyncClient], url: str) -> None:
    with pytest.raises(ServiceError, match=r"is no address of a service.*http://localhost:3000"):
        kind(url)


@pytest.mark.parametrize(("url", "sign"), [("http://h/?q=castle", "?"), ("https://h/clip/#results", "#")])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_address_of_a_page_is_none_of_a_service(kind: type[Client | AsyncClient], url: str, sign: str) -> None:
    """Each path would become a part of its query."""
    with pytest.raises(ServiceError, match=f"is the address of a page; leave out what follows the {re.escape(sign)}"):
        kind(url)


def test_what_is_too_long_for_a_url_is_one_of_the_clients_errors(ask: Ask) -> None:
    network = Network(ok(FIELDS))
    for method, given in (
        ("fields", {"place": {"in": ["x" * 1000] * 99}}),
        ("image", "x" * 70_000),
        ("thumbnail", "x" * 70_000),
    ):
        with pytest.raises(RequestRejected, match="what stands in the URL is too long") as raised:
            ask(network, method, given)
        assert raised.value.status == 414
        assert len(str(raised.value)) < 200
    assert network.requests == []


def test_an_address_that_leads_elsewhere_is_said(ask: Ask) -> None:
    """As that of http where a proxy serves https."""
    moved = httpx.Response(301, headers={"Location": "https://service/search/images"})
    with pytest.raises(ServerFailure, match="this address leads to https://service/search/images; give the one"):
        ask(Network(moved), "search_images", "red")


HALF = "a\ud800"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.search_images(HALF),
        lambda client: client.search_images("a", where=f"{HALF} = 1"),
        lambda client: client.search([text(HALF)]),
        lambda client: client.browse(sort=HALF),
        lambda client: client.encode_text(HALF),
        lambda client: client.image(HALF),
        lambda client: client.thumbnail(HALF),
        lambda client: client.swap(HALF),
        lambda client: client.click("id", HALF),
    ],
)
def test_half_a_character_is_refused_before_it_is_sent(ask: Callable[[Client], object]) -> None:
    with Client("http://localhost:1") as client, pytest.raises(InvalidQuery):
        ask(client)
