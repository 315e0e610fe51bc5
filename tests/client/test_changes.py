"""What both clients send to change the collection, and what makes it safe to send it again."""

import asyncio
import base64
import json
from collections.abc import Callable
from email.message import Message
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from clip_retrieval.client import AsyncClient, Client, Retries, delete, patch, put, text
from clip_retrieval.contract.collection import ImageInfo
from clip_retrieval.errors import InvalidChange
from tests.samples import png, square

RED = png(square("red"))
CHANGED = {"image_id": "red", "sequence": 3, "created": True, "changed": True, "etag": "e1"}
IMAGE = {
    "image_id": "red",
    "image_path": "red.png",
    "width": 4,
    "height": 3,
    "split": "test",
    "captions": [],
    "metadata": {},
}
PAGE = {"target": "images", "total_results": 0, "offset": 0, "next_offset": None, "query_time_ms": 1, "cached": False}


class Network:
    """Answers in turn, the last again and again; keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content)

    @property
    def request(self) -> httpx.Request:
        assert len(self.requests) == 1
        return self.requests[0]


Ask = Callable[..., Any]
AT_ONCE = Retries(base_s=0.001, max_s=0.001)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Calls one method of one of the clients over a network; of an iterator, all that it yields."""

    def ask_sync(network: Network, method: str, *args: Any, **options: Any) -> Any:
        with Client("http://service", retries=AT_ONCE, transport=httpx.MockTransport(network)) as client:
            found = getattr(client, method)(*args, **options)
            return list(found) if method == "images" else found

    def ask_async(network: Network, method: str, *args: Any, **options: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient("http://service", retries=AT_ONCE, transport=httpx.MockTransport(network)) as client:
                if method == "images":
                    return [image async for image in client.images(*args, **options)]
                return await getattr(client, method)(*args, **options)

        return asyncio.run(run())

    return ask_sync if request.param == "sync" else ask_async


def ok(body: object = CHANGED, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def form(request: httpx.Request) -> dict[str, Message]:
    """The parts of a multipart request by name."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + request.content).get_payload()
    assert isinstance(parts, list)
    named = {part.get_param("name", header="Content-Disposition"): part for part in parts if isinstance(part, Message)}
    return {str(name): part for name, part in named.items()}


def fields(request: httpx.Request) -> dict[str, str]:
    texts = {name: part.get_payload(decode=True) for name, part in form(request).items() if name != "file"}
    return {name: value.decode() for name, value in texts.items() if isinstance(value, bytes)}


def test_an_image_is_put_with_all_that_belongs_to_it(ask: Ask) -> None:
    network = Network(ok())
    said: Any = {"captions": ["a", "[b]"], "metadata": {"year": 2024, "place": None}, "split": "val"}
    assert ask(network, "put_image", "a/ü", RED, **said, image_path="x.png", if_match="e0").sequence == 3
    assert network.request.url.raw_path == b"/images/a%2F%C3%BC"
    assert fields(network.request) == {
        "captions": '["a", "[b]"]',
        "metadata": '{"year": 2024, "place": null}',
        "split": "val",
        "image_path": "x.png",
    }
    assert form(network.request)["file"].get_payload(decode=True) == RED
    assert network.request.headers["If-Match"] == '"e0"'


@pytest.mark.parametrize("named", [True, False])
def test_an_image_that_is_added_has_the_name_of_its_file_or_the_hash_of_its_pixels(
    ask: Ask, tmp_path: Path, named: bool
) -> None:
    path = tmp_path / "park.png"
    path.write_bytes(RED)
    network = Network(ok(status=201))
    ask(network, "add_image", path if named else BytesIO(RED))
    assert fields(network.request).get("id_from") == (None if named else "content")
    assert form(network.request)["file"].get_filename() == ("park.png" if named else "image")


def test_an_image_that_is_added_under_an_id_sends_it(ask: Ask) -> None:
    network = Network(ok(status=201))
    ask(network, "add_image", RED, image_id="own")
    assert fields(network.request)["image_id"] == "own"
    assert "id_from" not in fields(network.request)


def test_a_patch_sends_what_is_given(ask: Ask) -> None:
    network = Network(ok())
    ask(network, "patch_image", "red", metadata={"year": None}, if_match="*")
    assert json.loads(network.request.content) == {"metadata": {"year": None}}
    assert network.request.headers["If-Match"] == "*"


def test_changes_are_sent_in_order(ask: Ask) -> None:
    network = Network(ok({"sequence": 3, "results": []}))
    changes = [put("a", RED, captions=["x"], if_match="e"), patch("b", split="val"), delete("c", if_match="f")]
    ask(network, "change", changes)
    assert json.loads(network.request.content) == {
        "changes": [
            {
                "op": "put",
                "image_id": "a",
                "image": base64.b64encode(RED).decode(),
                "captions": ["x"],
                "if_match": "e",
            },
            {"op": "patch", "image_id": "b", "split": "val"},
            {"op": "delete", "image_id": "c", "if_match": "f"},
        ]
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: put("", RED),
        lambda: put("a", b""),
        lambda: put("a", RED, captions=[" "]),
        lambda: patch("a"),
        lambda: patch("a", metadata={"split": "test"}),
        lambda: delete("x" * 4097),
        lambda: delete("latin\udce9.jpg"),
        lambda: Client("http://service").patch_image("a"),
    ],
)
def test_a_change_that_no_service_takes_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidChange):
        make()


def test_every_image_is_listed_page_by_page(ask: Ask) -> None:
    pages = [{"images": [IMAGE, IMAGE], "next": "b ü"}, {"images": [IMAGE], "next": None}]
    network = Network(*map(ok, pages))
    assert ask(network, "images", limit=2) == [ImageInfo(**IMAGE)] * 3  # type: ignore[arg-type]
    assert [dict(request.url.params) for request in network.requests] == [
        {"limit": "2"},
        {"limit": "2", "after": "b ü"},
    ]


def test_a_search_names_the_change_and_the_state_that_it_asks_for(ask: Ask) -> None:
    network = Network(ok({**PAGE, "results": []}))
    ask(network, "search", [text("red")], state="v+3", min_sequence=3)
    assert json.loads(network.request.content)["state"] == "v+3"
    assert network.request.headers["Min-Sequence"] == "3"


@pytest.mark.parametrize(
    ("method", "args", "answer"),
    [
        ("image", ("a",), IMAGE),
        ("images_page", (), {"images": [], "next": None}),
        ("fields", (), {"fields": []}),
        ("thumbnail", ("a",), {}),
        ("original", ("a",), {}),
    ],
)
def test_what_reads_the_collection_names_the_change_that_it_waits_for(
    ask: Ask, method: str, args: tuple[Any, ...], answer: dict[str, Any]
) -> None:
    network = Network(ok(answer), ok(answer))
    ask(network, method, *args)
    ask(network, method, *args, min_sequence=3)
    assert [request.headers.get("Min-Sequence") for request in network.requests] == [None, "3"]


@pytest.mark.parametrize(
    ("method", "args", "options"),
    [
        ("add_image", (RED,), {}),
        ("delete_image", ("red",), {}),
        ("change", ([delete("red")],), {}),
        ("put_image", ("red", RED), {"if_match": "e0"}),
        ("patch_image", ("red",), {"split": "val", "if_match": "e0"}),
    ],
)
def test_what_may_not_count_twice_has_one_key_for_all_attempts_and_another_for_the_next_call(
    ask: Ask, method: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    answer = ok({"sequence": 3, "results": []} if method == "change" else CHANGED)
    network = Network(httpx.ReadError("broken"), httpx.Response(503), answer)
    ask(network, method, *args, **options)
    ask(network, method, *args, **options)
    keys = [request.headers["Idempotency-Key"] for request in network.requests]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize(
    ("method", "args", "options"), [("put_image", ("red", RED), {}), ("patch_image", ("red",), {"split": "val"})]
)
def test_what_is_equal_when_it_is_made_twice_needs_no_key(
    ask: Ask, method: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    network = Network(httpx.ReadError("broken"), ok())
    ask(network, method, *args, **options)
    assert len(network.requests) == 2
    assert not any("Idempotency-Key" in request.headers for request in network.requests)
