"""A service over an index in Milvus: the answers of FAISS on real photographs, and an engine that goes and comes."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from clip_retrieval.client import Client
from clip_retrieval.contract.answers import CaptionsAnswer, ImagesAnswer, SearchAnswer
from clip_retrieval.contract.queries import image, image_id, text
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store
from tests.e2e.versions import run
from tests.indexes.milvus_lite import LiteServer

pytestmark = pytest.mark.e2e

WINDMILL = SAMPLE / "images" / "renewable-windmill1.jpg"
BACK_S = 20


def build(source: Path, uri: str, output: Path, model: str, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "clip_retrieval", "build", str(source), "--model", model, "--output", str(output)]
    kept = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    done = subprocess.run(
        [*command, "--index", "milvus", "--index-uri", uri],
        env={**kept, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def asked_of(first: str) -> list[Callable[[Client], ImagesAnswer | CaptionsAnswer | SearchAnswer]]:
    """Every way to search, with the id of an image."""
    return [
        lambda client: client.search_images("a red panda", k=10),
        lambda client: client.search_captions(WINDMILL, k=10),
        lambda client: client.search_similar(WINDMILL, k=10),
        lambda client: client.search([text("a dog"), text("snow", -0.5)], k=50, offset=25),
        lambda client: client.search([image(WINDMILL), image_id(first, 0.3)], k=50, offset=105),
        lambda client: client.search([text("an owl")], k=20, where={"split": "train"}),
        lambda client: client.search([text("a building")], k=20, dedupe=True),
        lambda client: client.search([image(WINDMILL)], target="captions", k=20, min_score=0.1),
    ]


def test_photographs_have_the_same_answers_from_faiss_and_from_milvus(
    photographs: Server, demo: Store, launch: Launch, tmp_path: Path
) -> None:
    lite = str(tmp_path / "index.db")
    build(SAMPLE, lite, tmp_path / "artifact", "demo", demo.environment)
    port = reserve_port()
    server = launch(
        bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=str(tmp_path / "artifact"), BENTO_CLIP_WORKERS="1"
    ).wait_until_ready()
    with Client(photographs.url) as faiss, Client(server.url) as milvus:
        assert milvus.info().images == 160
        first = faiss.search([text("an owl")], k=1).results[0].image_id
        for asked in asked_of(first):
            one, other = asked(faiss), asked(milvus)
            assert one.results
            assert [result.model_dump() for result in one.results] == [result.model_dump() for result in other.results]
        # The same from a version without vectors, which takes over from the one with them.
        slim, environment = str(tmp_path / "slim.tar"), {"BENTOML_HOME": str(tmp_path / "launched")}
        exported = run("artifacts", "export", str(tmp_path / "artifact"), slim, "--without-vectors", **environment)
        assert exported.returncode == 0, exported.stderr
        tag = run("artifacts", "import", slim, **environment).stdout.strip()
        assert milvus.swap(tag).artifact == tag == milvus.info().artifact
        for asked in asked_of(first):
            one, other = asked(faiss), asked(milvus)
            assert [result.model_dump() for result in one.results] == [result.model_dump() for result in other.results]
    server.terminate()
    assert server.wait() == 0, server.text()
    assert "Traceback" not in server.text()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LiteServer]:
    server = LiteServer(tmp_path / "engine.db")
    server.start()
    yield server
    server.stop()


def ready(url: str) -> int:
    return httpx.get(f"{url}/readyz", timeout=10).status_code


def wait_for(what: str, is_so: Callable[[], bool], seconds: float = BACK_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not {what} after {seconds} s"
        time.sleep(0.1)


def test_an_engine_that_is_stopped_and_started_under_load(
    engine: LiteServer, collection: Path, launch: Launch, tmp_path: Path
) -> None:
    environment = {"BENTOML_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    build(collection, engine.uri, tmp_path / "artifact", "fake", environment)
    port = reserve_port()
    server = launch(
        bentoml_serve(port),
        port,
        BENTO_CLIP_ARTIFACT=str(tmp_path / "artifact"),
        BENTO_CLIP_CACHE_SIZE="0",
        BENTO_CLIP_WORKERS="1",
    ).wait_until_ready()
    began = worker_began(server.url)
    seen: list[tuple[float, int, str | None]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=20) as http:
            while not stop.is_set():
                start = time.monotonic()
                answer = http.post("/search/images", json={"text": "a red square", "k": 3})
                seen.append((time.monotonic() - start, answer.status_code, answer.headers.get("retry-after")))
                if answer.status_code == 200:
                    assert answer.json()["results"][0]["image_id"] == "red-bright.png"
                time.sleep(0.01)

    crowd = [threading.Thread(target=ask) for _ in range(6)]
    for thread in crowd:
        thread.start()
    try:
        wait_for("answered", lambda: len(seen) > 50)
        assert {status for _, status, _ in seen} == {200}
        engine.stop()
        wait_for("503", lambda: seen[-1][1] == 503)
        wait_for("unready", lambda: ready(server.url) == 503)
        health = httpx.get(f"{server.url}/health", timeout=10).json()
        assert health["status"] == "failing"
        assert health["index"].startswith(f"Milvus at {engine.uri} does not answer")
        assert httpx.post(f"{server.url}/encode/text", json={"text": "a red square"}, timeout=10).status_code == 200
        assert httpx.get(f"{server.url}/livez", timeout=10).status_code == 200
        engine.start()
        wait_for("ready", lambda: ready(server.url) == 200)
        wait_for("answered again", lambda: [status for _, status, _ in seen[-30:]] == [200] * 30)
    finally:
        stop.set()
        for thread in crowd:
            thread.join()
    assert Counter(status for _, status, _ in seen).keys() == {200, 503}
    assert {after for _, status, after in seen if status == 503} == {"1"}
    assert max(seconds for seconds, _, _ in seen) < 10
    assert abs(worker_began(server.url) - began) < 3, "no worker was started again"
    server.terminate()
    assert server.wait() == 0, server.text()
    assert "Traceback" not in server.text()


def worker_began(url: str) -> float:
    """When the worker was started, in seconds since the epoch."""
    uptime_s: float = httpx.get(f"{url}/health", timeout=10).json()["uptime_seconds"]
    return time.time() - uptime_s
