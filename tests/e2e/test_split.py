"""The service as two, a search and an encoder: the same answers, and what becomes of them without the encoder."""

import base64
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from clip_retrieval.serving.memory_parts import service_memory
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import MAX_UPLOAD_BYTES, Launch, Server, Store, start
from tests.samples import png, square

pytestmark = pytest.mark.e2e

OF_A_RUN = {"query_time_ms", "cached", "timestamp", "uptime_seconds"}
"""What an answer says about itself and not about what was asked."""
IMAGE = png(square("red", "soft"))
BASE64 = base64.b64encode(IMAGE).decode()
FORM = {"files": {"file": ("a.png", IMAGE, "image/png")}}
RED, BLUE = {"text": "red"}, {"text": "blue"}

REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "words": ("POST", "/search/images", {"json": {"text": "a red square", "k": 5}}),
    "an image": ("POST", "/search/similar", FORM),
    "captions": ("POST", "/search/text", FORM),
    "parts": ("POST", "/search", {"json": {"queries": [RED, {"image": BASE64, "weight": -0.5}], "k": 4}}),
    "an image of the collection": ("POST", "/search", {"json": {"queries": [{"image_id": "red-bright.png"}], "k": 4}}),
    "searches": (
        "POST",
        "/search/batch",
        {"json": {"requests": [{"queries": [RED]}, {"queries": [BLUE]}]}},
    ),
    "browsing": ("POST", "/search", {"json": {"sort": {}, "k": 4}}),
    "a vector of words": ("POST", "/encode/text", {"json": {"text": "red"}}),
    "a vector of an image": ("POST", "/encode/image", FORM),
    "OpenAI's": ("POST", "/v1/embeddings", {"json": {"input": ["red", "blue"], "model": "fake"}}),
    "BentoML's own, of texts": ("POST", "/encode_texts", {"json": {"texts": [RED, BLUE]}}),
    "BentoML's own, of images": ("POST", "/encode_images", {"json": {"images": [BASE64]}}),
    "no words": ("POST", "/search/images", {"json": {"text": ""}}),
    "no image": ("POST", "/search/similar", {"files": {"file": ("a.png", b"no image", "image/png")}}),
    "no language": ("POST", "/search/images", {"json": {"text": "red", "language": "xx"}}),
    "an unknown id": ("POST", "/search", {"json": {"queries": [{"image_id": "none"}]}}),
    "an image's record": ("GET", "/images/red-bright.png", {}),
    "all routes": ("GET", "/docs.json", {}),
    "the service": ("GET", "/", {}),
    "an unknown path": ("GET", "/none", {}),
}


SPLIT, ENCODER = "service_split:ClipRetrieval", "clip_retrieval.encoder_service:ClipEncoder"


@pytest.fixture(scope="module")
def split(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Both services, by BentoML's own command. They end by themselves, with status 0, on SIGTERM."""
    port, folder = reserve_port(), tmp_path_factory.mktemp("split")
    environment = {
        "BENTOML_HOME": str(shutil.copytree(store.environment["BENTOML_HOME"], folder / "bentoml")),
        "BENTO_CLIP_ARTIFACT": store.tag,
        "BENTO_CLIP_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
        "BENTO_CLIP_CACHE_SIZE": "0",  # a vector that was kept needs no encoder
    }
    server = start(bentoml_serve(port, SPLIT), port, folder / "log", environment)
    try:
        yield server.wait_until_ready()
        server.terminate()
        assert server.wait() == 0, server.text()
    finally:
        server.kill()


def encoder_of(server: Server) -> psutil.Process:
    """The worker that encodes."""
    everything = psutil.Process(server.process.pid).children(recursive=True)
    [found] = [one for one in everything if "--service-name clip-encoder" in " ".join(one.cmdline())]
    return found


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def answer(server: Server, method: str, path: str, content: dict[str, Any]) -> httpx.Response:
    return httpx.request(method, f"{server.url}{path}", **content, timeout=30)


def said(response: httpx.Response) -> tuple[int, object]:
    """The status and what was said, without what differs between two runs of the same request."""
    return response.status_code, without(response.json(), OF_A_RUN)


def without(value: object, names: set[str]) -> object:
    if isinstance(value, dict):
        return {key: without(one, names) for key, one in value.items() if key not in names}
    return [without(one, names) for one in value] if isinstance(value, list) else value


def wait_for(what: Callable[[], bool], seconds: float, server: Server) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, server.text()
        time.sleep(0.1)


@pytest.mark.parametrize("name", REQUESTS)
def test_two_services_say_what_one_says(split: Server, service: Server, name: str) -> None:
    assert said(answer(split, *REQUESTS[name])) == said(answer(service, *REQUESTS[name]))


def test_the_encoder_is_reached_by_no_port(split: Server) -> None:
    listening = [one for one in encoder_of(split).net_connections(kind="inet") if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.port for one in listening} <= {split.port}, "BentoML's sockets are inherited by all workers"
    assert answer(split, "POST", "/fingerprint", {}).status_code == 404


def test_the_memory_of_both_is_told_apart(split: Server) -> None:
    memory = service_memory(split.process.pid)
    workers = [one.pid for one in memory.processes if one.role == "worker"]
    assert len(workers) == 2
    assert encoder_of(split).pid in workers


def test_without_the_encoder_words_are_refused_at_once_and_the_rest_goes_on(split: Server) -> None:
    with stopped(encoder_of(split)):
        wait_for(lambda: answer(split, "GET", "/health", {}).json()["encoder"] is not None, 10, split)
        began = time.monotonic()
        refused = answer(split, *REQUESTS["words"])
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "the encoder service has not answered for 3 s" in refused.json()["detail"]
        assert time.monotonic() - began < 2
        assert answer(split, *REQUESTS["BentoML's own, of texts"]).status_code == 503
        assert answer(split, *REQUESTS["an image of the collection"]).json()["results"]
        assert answer(split, *REQUESTS["browsing"]).json()["results"]
        assert answer(split, "GET", "/readyz", {}).status_code == 200
        assert answer(split, "GET", "/health", {}).json()["status"] == "healthy"
    wait_for(lambda: answer(split, "GET", "/health", {}).json()["encoder"] is None, 10, split)
    assert answer(split, *REQUESTS["words"]).status_code == 200


def test_an_encoder_that_ends_is_replaced_and_the_search_is_not(split: Server) -> None:
    encoder = encoder_of(split)
    supervisor = psutil.Process(split.process.pid)
    [search] = [one for one in supervisor.children() if "clip-encoder" not in " ".join(one.cmdline())]
    encoder.kill()
    wait_for(lambda: answer(split, *REQUESTS["words"]).status_code == 200, 20, split)
    assert encoder_of(split).pid != encoder.pid
    assert search.is_running()
    assert "Traceback" not in split.text()


def test_an_encoder_on_a_machine_of_its_own_is_named_by_its_url(launch: Launch, store: Store) -> None:
    port, its = reserve_port(), reserve_port()
    artifact = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_CACHE_SIZE": "0"}
    encoder = launch(bentoml_serve(its, ENCODER), its, **artifact)
    command = [sys.executable, "-m", "clip_retrieval", "serve", store.tag, "--port", str(port)]
    search = launch(command, port, BENTO_CLIP_ENCODER_URL=encoder.url, **artifact).wait_until_ready()
    assert "encodes for everybody who reaches 127.0.0.1, without a key" in encoder.text()
    assert answer(search, *REQUESTS["words"]).json()["results"][0]["image_id"] == "red-bright.png"
    assert answer(search, *REQUESTS["an image"]).json()["results"][0]["image_id"] == "red-soft.png"
    encoder.terminate()
    assert encoder.wait() == 0, encoder.text()
    wait_for(lambda: answer(search, *REQUESTS["captions"]).status_code == 503, 10, search)
    assert answer(search, *REQUESTS["an image of the collection"]).status_code == 200
    search.terminate()
    assert search.wait() == 0, search.text()


def test_an_artifact_that_cannot_be_used_is_refused_before_a_worker_starts(launch: Launch, tmp_path: Path) -> None:
    for service in (SPLIT, ENCODER):
        port = reserve_port()
        server = launch(bentoml_serve(port, service), port, BENTO_CLIP_ARTIFACT=str(tmp_path / "none"))
        assert server.wait(60) == 1
        assert "bento-clip: there is no artifact" in server.text()
        assert "Traceback" not in server.text()


def test_the_one_service_says_that_it_has_no_use_for_an_encoder_elsewhere(launch: Launch, store: Store) -> None:
    port = reserve_port()
    environment = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_ENCODER_URL": "http://127.0.0.1:9"}
    server = launch(bentoml_serve(port), port, **environment)
    assert server.wait(60) == 1
    assert "serve clip_retrieval.split_service:ClipRetrieval" in server.text()


def test_both_are_built_as_one_bento(launch: Launch, store: Store) -> None:
    command = [sys.executable, "-m", "bentoml", "build", "-f", "bentofile.split.yaml", "--output", "tag"]
    build = launch(command, 0)
    assert build.wait(60) == 0, build.text()
    tag = build.text().split()[-1].removeprefix("__tag__:")
    home = next(Path(build.log).parent.glob("launched"))
    info = yaml.safe_load((home / "bentos" / tag.replace(":", "/") / "bento.yaml").read_text())
    assert {service["name"] for service in info["services"]} == {"clip-retrieval", "clip-encoder"}
    assert info["entry_service"] == "clip-retrieval"
    port = reserve_port()
    server = launch(bentoml_serve(port, tag), port).wait_until_ready()
    assert answer(server, *REQUESTS["words"]).json()["results"][0]["image_id"] == "red-bright.png"
    assert encoder_of(server).is_running()
    server.terminate()
    assert server.wait() == 0, server.text()
