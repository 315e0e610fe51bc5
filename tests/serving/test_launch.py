"""The small supervisor as a process: what it is told, what it reads itself, and how small it is."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.cores import usable_cores
from clip_retrieval.serving.launch import workers_of
from clip_retrieval.serving.leading import usual_workers
from scripts.common.server import reserve_port

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "clip_retrieval.serving.launch"]


def launch(*options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BENTO", "PORT"))}
    return subprocess.run(
        [*LAUNCH, *options],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_number_of_workers_is_read_from_its_setting_or_follows_from_the_cores() -> None:
    assert workers_of({"BENTO_CLIP_WORKERS": "3"}) == 3
    assert workers_of({"bento_clip_workers": "2"}) == 2, "settings are read whatever their case"
    assert workers_of({}) == usual_workers(usable_cores())


@pytest.mark.parametrize("given", ["0", "two"])
def test_a_number_of_workers_that_is_none_is_refused_in_the_words_of_the_settings(given: str) -> None:
    done = launch("--folder", str(ROOT), "--host", "127.0.0.1", BENTO_CLIP_WORKERS=given)
    assert done.returncode == 1
    assert done.stderr.startswith("bento-clip: a BENTO_CLIP_ setting is not valid: workers: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = launch("--folder", str(ROOT), "--host", "127.0.0.1", "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bento-clip: cannot listen on 127.0.0.1:{port} (Address already in use)\n"


def test_something_is_to_be_served() -> None:
    done = launch("--port", "3000")
    assert done.returncode == 2
    assert "--folder" in done.stderr
    assert "--bento" in done.stderr


@pytest.mark.parametrize("what", ["--folder", "--bento"])
def test_what_only_bentomls_supervisor_understands_has_it_started(what: str, tmp_path: Path) -> None:
    """Here a file in its place says how it was called."""
    (tmp_path / "bentoml.py").write_text("import sys; print(*sys.argv[1:], sep='|')")
    place = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "BENTOML_CONFIG_OPTIONS": "api_server.metrics.enabled=false"}
    port = str(reserve_port())
    done = launch(what, str(tmp_path), "--host", "127.0.0.1", "--port", port, "--ssl-certfile", "a.pem", **place)
    service = [str(tmp_path)] if what == "--bento" else ["clip_retrieval.service:ClipRetrieval"]
    rest = [] if what == "--bento" else ["--working-dir", str(tmp_path)]
    expected = ["serve", *service, "--host", "127.0.0.1", "--port", port, "--ssl-certfile", "a.pem", *rest]
    assert done.stdout.strip().split("|") == expected, done.stderr


def called(folder: Path, *options: str, **environment: str) -> list[str]:
    """How ``bentoml`` is called: here a file in its place says so."""
    (folder / "bentoml.py").write_text("import sys; print(*sys.argv[1:], sep='|')")
    done = launch(*options, "--host", "127.0.0.1", PYTHONPATH=f"{folder}:{ROOT}", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")[:2]


def test_a_search_with_its_encoder_elsewhere_is_the_service_that_is_two(tmp_path: Path) -> None:
    expected = ["serve", "clip_retrieval.split_service:ClipRetrieval"]
    assert called(tmp_path, "--folder", str(tmp_path), bento_clip_encoder_url="http://127.0.0.1:9") == expected


def test_a_bento_of_two_services_has_bentomls_supervisor(tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text("service: clip_retrieval.split_service:ClipRetrieval\nname: two\n")
    assert called(tmp_path, "--bento", str(tmp_path)) == ["serve", str(tmp_path)]
