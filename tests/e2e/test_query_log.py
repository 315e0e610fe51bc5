"""The query log of a real service: several workers, one of them killed, and what the command makes of it."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from clip_retrieval.query_log.reader import log_of
from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store, bento_clip_serve
from tests.e2e.test_workers import search, wait_for, wait_until_all_are_ready, workers_of

pytestmark = pytest.mark.e2e


def test_every_search_of_all_workers_is_in_the_log_also_after_a_kill(
    launch: Launch, store: Store, tmp_path: Path
) -> None:
    log, port = tmp_path / "queries", reserve_port()
    command = [*bento_clip_serve(port, store.tag), "--query-log", str(log)]
    server = launch(command, port, BENTO_CLIP_WORKERS="2")
    wait_until_all_are_ready(server, 2)
    ids = [asked(server, f"red {number}") for number in range(40)]
    wait_for(lambda: log.exists() and len(held(log)) >= 40, 10, server)
    victim = workers_of(server)[0]
    victim.kill()
    victim.wait()
    wait_for(lambda: len(workers_of(server)) == 2, 30, server)
    server.wait_until_ready()
    last = asked(server, "blue")
    clicked = httpx.post(f"{server.url}/clicks", json={"search_id": last, "image_id": "blue-soft.png"}, timeout=10)
    assert clicked.status_code == 200, clicked.text
    server.terminate()
    assert server.wait() == 0, server.text()
    assert {*ids, last} <= held(log)
    found = log_of(log, "squares")
    assert len(found.files) >= 2, "a file for each worker that was asked"
    assert [click.search_id for click in found.clicks] == [last]
    shown = subprocess.run(
        [sys.executable, "-m", "clip_retrieval", "queries", "show", "--log", str(log), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [described] = json.loads(shown.stdout)
    assert (described["searches"], described["clicks"]) == (41, 1)


def test_a_log_that_cannot_be_kept_is_said_before_the_port_is_open(
    launch: Launch, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    port = reserve_port()
    server = launch(
        bentoml_serve(port), port, BENTO_CLIP_ARTIFACT=store.tag, BENTO_CLIP_QUERY_LOG=str(tmp_path / "file")
    )
    assert server.wait(60) != 0
    assert f"{tmp_path / 'file'}" in server.text()
    assert "Traceback" not in server.text()


def asked(server: Server, text: str) -> str:
    answer = search(server, text)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["search_id"]
    return found


def held(log: Path) -> set[str]:
    return {one.search_id for one in log_of(log, "squares").searches}
