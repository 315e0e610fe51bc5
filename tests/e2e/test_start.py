"""How a service starts, and what it says about that."""

import json
import sys
import time
from itertools import pairwise

import httpx
import pytest

from scripts.common.server import reserve_port
from tests.e2e.conftest import Launch, Server, Store

pytestmark = pytest.mark.e2e

STAGES = {
    "command": ["interpreter and imports", "checks", "waiting until the service is ready", "first answer"],
    "supervisor": ["interpreter and imports", "verifying", "until it listens"],
    "worker": [
        "interpreter and first imports",
        "imports",
        "routes and middleware",
        "opening the artifact",
        "reading and compiling the model",
        "opening indexes and records",
        "wiring, event loop",
        "warming up, decoders",
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
