"""Results that services share in a real Valkey server, which is killed and started again under load."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clip_retrieval.serving.cache import RenderedPage
from clip_retrieval.serving.replica_cache import ReplicaCache, connect
from clip_retrieval.serving.shared_state import SharedState
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server
from tests.e2e.test_workers import wait_for
from tests.e2e.valkey import PASSWORD, Valkey
from tests.e2e.versions import load, results

pytestmark = pytest.mark.e2e

PAGE = RenderedPage(b'[{"image_id": "red"}]', total=1, next_offset=None, truncated=False)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


def cache_of(valkey: Valkey, *, timeout_s: float = 1) -> tuple[ReplicaCache, SharedState]:
    shared = SharedState.alone()
    cache = ReplicaCache(connect(valkey.url), release="1", ttl_s=60, timeout_s=timeout_s, slot=shared.slots[0])
    return cache, shared


def test_many_look_ups_at_once_each_get_their_own_answer_also_those_after_slow_ones(valkey: Valkey) -> None:
    async def scenario() -> None:
        cache, shared = cache_of(valkey, timeout_s=0.0001)
        patient, _ = cache_of(valkey)
        for one in (cache, patient):
            one.start()
        await asyncio.sleep(0.5)
        pages = {f"{number}": RenderedPage(f"[{number}]".encode(), number, None, False) for number in range(64)}
        for key, page in pages.items():
            _, generation = await patient.get("v", [key])
            patient.keep("v", key, page, generation)
        await asyncio.sleep(0.2)

        async def ask(one: ReplicaCache, key: str) -> None:
            found, _ = await one.get("v", [key, key])
            assert found in ([None, None], [pages[key], pages[key]])

        for _turn in range(10):
            await asyncio.gather(*(ask(cache, key) for key in pages))
        found, _ = await patient.get("v", list(pages))
        assert found == list(pages.values())
        for one in (cache, patient):
            await one.close()
        assert shared.slots[0]["replica_timeouts"] > 0, "some were too slow, and the connections go on"

    asyncio.run(scenario())


def test_a_server_with_another_password_is_no_error(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        wrong = connect(valkey.url.replace(PASSWORD, "hunter3"))
        cache = ReplicaCache(wrong, release="1", ttl_s=60, timeout_s=1, slot=SharedState.alone().slots[0])
        cache.start()
        await asyncio.sleep(0.3)
        assert await cache.get("v", ["red"]) == ([None], None)
        await cache.close()

    asyncio.run(scenario())
    assert "(AuthenticationError)" in caplog.text
    assert "hunter" not in caplog.text


def replica_results(server: Server) -> dict[str, float]:
    """The counts of ``/metrics``, by result."""
    name = 'bento_clip_replica_cache_requests_total{result="'
    lines = httpx.get(f"{server.url}/metrics", timeout=10).text.splitlines()
    return {line.removeprefix(name).partition('"')[0]: float(line.split()[-1]) for line in lines if name in line}


def is_cached(server: Server, text: str) -> bool:
    answer = httpx.post(f"{server.url}/search/images", json={"text": text}, timeout=10)
    answer.raise_for_status()
    return "cache" in answer.headers["Server-Timing"]


def test_services_share_results_and_no_request_fails_when_the_store_is_killed_and_comes_back(
    launch: Launch, valkey: Valkey
) -> None:
    environment = {"BENTO_CLIP_CACHE_URL": valkey.url, "BENTO_CLIP_CACHE_TIMEOUT_S": "0.2"}
    servers = []
    for _ in range(2):
        port = reserve_port()
        servers.append(launch(bentoml_serve(port), port, **environment))
    first, second = (server.wait_until_ready() for server in servers)
    wait_for(lambda: not is_cached(first, f"t {time.monotonic()}") and replica_results(first)["miss"] > 0, 10, first)
    assert not is_cached(first, "a red square")
    wait_for(lambda: is_cached(second, "a red square"), 10, second)
    assert replica_results(second)["hit"] >= 1
    with httpx.Client(base_url=first.url, timeout=10) as client:
        known = {"red": [results(client, "red w1")]}
    with load(first, known) as seen:
        time.sleep(1)
        valkey.kill()
        wait_for(lambda: "does not answer" in first.text(), 10, first)
        before = seen.answers
        assert httpx.post(f"{first.url}/cache/clear", timeout=10).json()["message"].endswith("still answer from it")
        wait_for(lambda: seen.answers > before + 50, 10, first)
        assert httpx.get(f"{first.url}/readyz", timeout=10).status_code == 200
        valkey.start()
        wait_for(lambda: "answers again" in first.text(), 10, first)
        hits = replica_results(first)["hit"] + replica_results(first)["miss"]
        wait_for(lambda: replica_results(first)["hit"] + replica_results(first)["miss"] > hits, 10, first)
    assert seen.failed == []
    assert seen.wrong == []
    wait_for(lambda: not is_cached(first, "a green square") and is_cached(second, "a green square"), 10, second)
    assert "still answer" not in httpx.post(f"{second.url}/cache/clear", timeout=10).json()["message"]
    wait_for(lambda: "Traceback" not in first.text() and not is_cached(first, "a green square"), 5, first)
    for server in (first, second):
        assert PASSWORD not in server.text()
        assert "Traceback" not in server.text()
