"""The record of changes: a line for each change that is on disk, with who made it; and what a stranger learns."""

import asyncio
import base64
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from clip_retrieval.access.gate import Gate
from clip_retrieval.access.key_ring import KeyRing
from clip_retrieval.access.keys import new_key
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import SwapRefused
from clip_retrieval.http.audit import LOGGER
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.request_ids import RequestIds
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.live.edit import Edit
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.change_work import Outcome, Reply
from tests.http.in_process import Api
from tests.samples import png, square
from tests.serving.test_swap import Host

RED = png(square("red", size=30))
SECRET, ANNA = new_key("anna", "admin")
GATE = Gate(KeyRing([ANNA]))


@pytest.fixture
def api(fake_artifact: Artifact, tmp_path: Path) -> Iterator[Api]:
    made = Api(Retriever(fake_artifact, FakeEncoder()), changes=tmp_path / "changes")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)


def ask(
    api: Api,
    method: str,
    path: str,
    *,
    gate: Gate = GATE,
    key: str | None = SECRET,
    address: str = "10.0.0.7",
    **options: Any,
) -> Any:
    """Ask through the middleware that knows the caller."""
    api.state.gate = gate
    app = RequestIds(ErrorEnvelope(RouteCheck(Authentication(api.app, gate=gate))))
    headers = {"X-Request-Id": "abc", **options.pop("headers", {}), **({"X-API-Key": key} if key else {})}

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 481))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            return await http.request(method, path, headers=headers, **options)

    return asyncio.run(run())


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.audit for record in caplog.records if record.name == LOGGER]  # type: ignore[attr-defined]


BY_ANNA = {"who": "key:anna", "address": "10.0.0.7", "request_id": "abc"}


def test_each_change_has_its_line(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(api, "PUT", "/images/a%0Ab", files={"file": ("x.png", RED)}).status_code == 201
    assert ask(api, "PATCH", "/images/a%0Ab", json={"split": "val"}).status_code == 200
    assert ask(api, "DELETE", "/images/a%0Ab").status_code == 200
    assert lines(caplog) == [
        {"what": "put", "image_id": "a\nb", "sequence": 1, "created": True, **BY_ANNA},
        {"what": "patch", "image_id": "a\nb", "sequence": 2, "created": False, **BY_ANNA},
        {"what": "delete", "image_id": "a\nb", "sequence": 3, "created": False, **BY_ANNA},
    ]
    first = caplog.records[0].getMessage()
    assert first == ('put image_id="a\\nb" sequence=1 created=true who="key:anna" address="10.0.0.7" request_id="abc"')


def test_the_line_has_the_whole_address_of_a_client_of_ipv6(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A limit counts its network."""
    ask(api, "PUT", "/images/a", files={"file": ("x.png", RED)}, address="2001:db8::7")
    ask(api, "DELETE", "/images/a", key=None, address="2001:db8::7")
    made, refused = lines(caplog)
    assert (made["who"], made["address"]) == ("key:anna", "2001:db8::7")
    assert (refused["what"], refused["address"]) == ("refused", "2001:db8::7")


def test_several_changes_have_a_line_each_and_those_that_are_not_made_have_none(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    changes = [
        {"op": "put", "image_id": "a", "image": base64.b64encode(RED).decode()},
        {"op": "delete", "image_id": "absent"},
        {"op": "patch", "image_id": "red-bright.png", "split": "val"},
        {"op": "nonsense"},
    ]
    answer = ask(api, "POST", "/changes", json={"changes": changes})
    assert [one["status"] for one in answer.json()["results"]] == [201, 404, 200, 422]
    assert [(line["what"], line["image_id"], line["sequence"]) for line in lines(caplog)] == [
        ("put", "a", 1),
        ("patch", "red-bright.png", 2),
    ]


def test_what_changes_nothing_has_no_line(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Idempotency-Key": "once"}
    for _ in range(2):
        ask(api, "POST", "/images", files={"file": ("x.png", RED)}, headers=headers)
    ask(api, "PUT", "/images/x.png", files={"file": ("x.png", RED)})
    assert ask(api, "DELETE", "/images/absent").status_code == 404
    assert [line["what"] for line in lines(caplog)] == ["put"]


def test_a_change_that_nobody_waits_for_any_more_is_on_record(api: Api) -> None:
    """A client that leaves, or a time limit, ends the request and not what is being written."""
    changes = api.state.require_changes()
    written, left, made = threading.Event(), threading.Event(), threading.Event()

    def respond(_outcomes: Sequence[Outcome], _sequence: int) -> Reply:
        written.set()
        assert left.wait(5)
        return Reply(200, "{}")

    async def leave() -> None:
        task = asyncio.create_task(changes.make([Edit("delete", "red-bright.png")], respond, on_made=made.set))
        await asyncio.to_thread(written.wait, 5)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        left.set()
        assert await asyncio.to_thread(made.wait, 5)

    asyncio.run(leave())
    assert changes.state.get("red-bright.png") is None


def test_clearing_the_cache_and_swaps_have_their_lines(
    api: Api, fake_artifact: Artifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(fake_artifact, tmp_path / "host")
    try:
        api.state.swapper = host.swapper
        assert ask(api, "POST", "/cache/clear").status_code == 200
        wanted = str(fake_artifact.path)
        served = ask(api, "POST", "/artifact", json={"artifact": wanted}).json()["artifact"]
        host.error = SwapRefused("it falls short")
        assert ask(api, "POST", "/artifact", json={"artifact": wanted}).status_code == 409
    finally:
        host.close()
    assert lines(caplog) == [
        {"what": "clear cache", "dropped": 0, **BY_ANNA},
        {"what": "swap", "wanted": wanted, "artifact": served, **BY_ANNA},
        {"what": "swap", "wanted": wanted, "refused": "it falls short", **BY_ANNA},
    ]


def test_who_may_not_search_learns_of_the_health_and_not_of_what_is_served(api: Api) -> None:
    known = ask(api, "GET", "/health").json()
    assert (known["artifact"], known["takes_changes"]) == ("clip-retrieval:test", True)
    unknown = ask(api, "GET", "/health", key=None).json()
    assert unknown["status"] == "healthy"
    assert (unknown["artifact"], unknown["version"], unknown["changes"]) == (None, None, None)
    assert json.dumps(unknown).find(str(api.state.settings.changes)) == -1


def test_health_says_whether_the_one_who_asks_may_change_the_collection(api: Api) -> None:
    secret, ruth = new_key("ruth", "search")
    gate = Gate(KeyRing([ANNA, ruth]))
    may = [ask(api, "GET", "/health", gate=gate, key=key).json()["may_change"] for key in (SECRET, secret, None)]
    assert may == [True, False, False]


def test_a_read_only_service_says_that_it_takes_no_changes(api: Api) -> None:
    health = ask(api, "GET", "/health", gate=Gate(KeyRing([ANNA]), is_read_only=True)).json()
    assert (health["takes_changes"], health["may_change"]) == (False, False)
    assert "BENTO_CLIP_READONLY" in health["changes"]
