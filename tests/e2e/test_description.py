"""Schemathesis asks the real service all that its description allows and forbids: no 5xx, nothing that it does not say.

Each run has a seed, so a failure comes again. The short form is part of ``make test-e2e``; the long one, of ``make
test-long``, sends 10,000 requests and more. Both run all checks and all phases: examples, boundaries, random values,
and sequences of requests whose answers give the ids of the next.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store

pytestmark = pytest.mark.e2e

CONFIG = Path(__file__).with_name("schemathesis.toml")
SEED = 16
LONG = 10_000


def serve(launch: Launch, store: Store, **settings: str) -> Server:
    """A service of one worker, so that nothing is too many for it, and that answers 504 soon."""
    port = reserve_port()
    settings |= {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_WORKERS": "1", "BENTO_CLIP_REQUEST_TIMEOUT_S": "10"}
    return launch(bentoml_serve(port), port, **settings).wait_until_ready()


def ask(server: Server, examples: int) -> int:
    """How many requests Schemathesis sent, none of which it found fault with."""
    command = [
        str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIG), "run", f"{server.url}/docs.json",
        "--checks", "all", "--max-examples", str(examples), "--seed", str(SEED), "--continue-on-failure", "--no-color",
        "--suppress-health-check", "all", "--generation-database", "none", "--request-timeout", "30",
    ]  # fmt: skip
    environment = {"SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sent = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert sent is not None, done.stdout
    assert sent[1] == sent[2]
    assert server.process.poll() is None, server.text()
    assert httpx.get(f"{server.url}/readyz", timeout=10).is_success
    return int(sent[1])


def test_a_frozen_service_answers_as_it_is_described(launch: Launch, store: Store) -> None:
    assert ask(serve(launch, store), examples=4) > 500


def test_a_service_that_takes_changes_answers_as_it_is_described(launch: Launch, store: Store, tmp_path: Path) -> None:
    server = serve(launch, store, BENTO_CLIP_CHANGES=str(tmp_path / "changes"))
    assert ask(server, examples=2) > 500


@pytest.mark.slow
@pytest.mark.parametrize("takes_changes", [False, True], ids=["frozen", "changes"])
def test_ten_thousand_requests_are_answered_as_described(
    launch: Launch, store: Store, tmp_path: Path, takes_changes: bool
) -> None:
    settings = {"BENTO_CLIP_CHANGES": str(tmp_path / "changes")} if takes_changes else {}
    assert ask(serve(launch, store, **settings), examples=520) >= LONG


def test_paths_that_are_made_up_leave_no_series_of_metrics_behind(launch: Launch, store: Store) -> None:
    """One for each path would fill the memory of every worker."""
    server = serve(launch, store)
    with httpx.Client(base_url=server.url) as http:
        for number in range(50):
            assert http.get(f"/made/up/{number}").status_code == 404
            assert http.get(f"/images/made-up-{number}").status_code == 404
        metrics = http.get("/metrics").text
    assert 'endpoint="other"' in metrics
    assert 'endpoint="/images/{image_id}"' in metrics
    assert "made" not in metrics
