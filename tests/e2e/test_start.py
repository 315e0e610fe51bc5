"""How a service starts, and what it says about that."""

import http.client
import json
import sys
import time
from contextlib import closing
from itertools import pairwise

import httpx
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store, bento_clip_serve
from tests.e2e.test_workers import supervisor_of

pytestmark = pytest.mark.e2e

STAGES = {
    "command": ["interpreter and imports", "checks", "waiting until the service is ready", "first answer"],
    "supervisor": ["interpreter and imports", "until it listens", "until its workers start"],
    "worker": [
        "interpreter and first imports",
        "imports",
        "routes and middleware",
        "opening the artifact",
        "reading and compiling the model",
        "opening indexes and records",
        "wiring, event loop",
        "warming up, decoders",
        "waiting until it is verified",
        "until ready",
    ],
}


def serve(artifact: str, port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "clip_retrieval", "serve", artifact, "--port", str(port), *options]


def line_of(server: Server) -> str:
    """The JSON line that the command prints after the first answer."""
    for _ in range(100):
        if lines := [line for line in server.text().splitlines() if line.startswith('{"ready_s"')]:
            return lines[0]
        time.sleep(0.1)
    raise AssertionError(f"no profile; the log:\n{server.text()}")


def test_a_start_is_profiled_over_its_processes_and_the_service_goes_on(store: Store, launch: Launch) -> None:
    port = reserve_port()
    command = serve(store.tag, port, "--profile-start", "--json")
    server = launch(command, port, **store.environment).wait_until_ready()
    profile = json.loads(line_of(server))
    assert {
        process: [stage["stage"] for stage in profile["stages"] if stage["process"] == process] for process in STAGES
    } == STAGES
    for process in STAGES:
        stages = [stage for stage in profile["stages"] if stage["process"] == process]
        assert len({stage["pid"] for stage in stages}) == 1
        assert all(before["until_s"] == after["from_s"] for before, after in pairwise(stages))
        assert all(stage["processor_s"] >= 0 for stage in stages)
    first = {process: next(s for s in profile["stages"] if s["process"] == process)["from_s"] for process in STAGES}
    assert first["command"] == 0
    ready = next(stage["until_s"] for stage in profile["stages"] if stage["stage"] == "until ready")
    assert first["supervisor"] < ready < profile["ready_s"] < profile["first_answer_s"]
    assert httpx.get(f"{server.url}/readyz").is_success
    server.terminate()
    assert server.wait() == 0


def test_json_without_a_profile_is_refused(store: Store, launch: Launch) -> None:
    port = reserve_port()
    server = launch(serve(store.tag, port, "--json"), port, **store.environment)
    assert server.wait() == 2
    assert "--profile-start" in server.text()


def ask(port: int, path: str, body: str | None = None) -> tuple[int, http.client.HTTPMessage, bytes]:
    """The answer on a connection of its own. Raises OSError if it is refused or reset."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("command", ["bento-clip", "bentoml"])
def test_the_port_answers_from_the_beginning_and_no_request_is_refused_or_reset(
    store: Store, launch: Launch, command: str, workers: int
) -> None:
    """From the first connection on, and for a second after the first real answer, when one worker may still load."""
    port = reserve_port()
    line = bento_clip_serve(port, store.tag) if command == "bento-clip" else bentoml_serve(port)
    server = launch(line, port, BENTO_CLIP_ARTIFACT=store.tag, BENTO_CLIP_WORKERS=str(workers))
    deadline = time.monotonic() + 60
    while True:
        try:
            status, headers, body = ask(port, "/readyz")
            break
        except ConnectionRefusedError:  # it does not listen yet
            assert time.monotonic() < deadline, server.text()
            time.sleep(0.01)
    assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
    assert json.loads(body) == {
        "error": "Service Unavailable",
        "detail": "the service is starting; retry after 1 s",
    }
    assert ask(port, "/livez")[0] == 200
    statuses, until = [], float("inf")
    while time.monotonic() < min(until, deadline):
        statuses.append(ask(port, "/search/images", '{"text": "red"}')[0])
        if statuses[-1] == 200:
            until = min(until, time.monotonic() + 1)
        time.sleep(0.01)
    assert statuses == sorted(statuses, reverse=True), "once a worker answers, nobody else does"
    assert {*statuses} == {503, 200}
    assert ask(port, "/readyz")[0] == 200
    server.terminate()
    assert server.wait() == 0, server.text()


def test_a_service_that_is_told_to_stop_while_it_starts_ends_with_status_0(store: Store, launch: Launch) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, store.tag), port)
    while True:
        try:
            assert ask(port, "/readyz")[0] == 503
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    time.sleep(0.3)
    server.terminate()
    assert server.wait() == 0, server.text()
    assert "Traceback" not in server.text()


def test_the_supervisor_is_small(store: Store, launch: Launch) -> None:
    port = reserve_port()
    server = launch(bento_clip_serve(port, store.tag), port).wait_until_ready()
    assert supervisor_of(server).memory_info().rss < 45e6


CRASHING = [sys.executable, "-m", "bentoml", "serve", "tests.e2e.crashing_service:ClipRetrieval", "--host", "127.0.0.1"]


def test_a_loader_that_a_damaged_file_ends_does_not_hide_that_it_is_damaged(
    launch: Launch, artifact_copy: Artifact
) -> None:
    """It loads while the file is verified, and is quicker here."""
    port = reserve_port()
    (artifact_copy.path / "encoder" / "encoder.json").write_text("{}")
    server = launch([*CRASHING, "-p", str(port)], port, BENTO_CLIP_ARTIFACT=str(artifact_copy.path))
    assert server.wait(60) == 1, server.text()
    said = [line for line in server.text().splitlines() if line.startswith("bento-clip: ")]
    assert len(said) == 1, server.text()
    assert "encoder.json differs from its hash in the manifest; restore or build the artifact again" in said[0]


@pytest.mark.parametrize("name", ["encoder/encoder.json", "records.sqlite", "captions.npy", "columns/columns.json"])
def test_each_damaged_file_is_named_whatever_its_loader_says(
    launch: Launch, artifact_copy: Artifact, name: str
) -> None:
    path = artifact_copy.path / name
    path.write_bytes(path.read_bytes()[:40])
    port = reserve_port()
    server = launch(bento_clip_serve(port, str(artifact_copy.path)), port)
    assert server.wait(60) == 1, server.text()
    said = [line for line in server.text().splitlines() if line.startswith("bento-clip: ")]
    assert said == [f"bento-clip: {path} differs from its hash in the manifest; restore or build the artifact again"], (
        server.text()
    )
    assert "Traceback" not in server.text()
