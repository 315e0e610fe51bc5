"""The load test in its short form against real services: that it works and judges, not how fast anything is."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.conftest import ROOT, Launch, Server, Store, bentoml_serve, free_port

pytestmark = pytest.mark.e2e

TIMEOUT_S = 180
LAX = """
max_failures = 0
[[limits]]
measure = "search"
percentile = 99
max_ms = 10_000
steps = "to saturation"
"""


def load_test(*options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtests.run", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def last_line(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def rows(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Locust's statistics by type and name."""
    with (out / "locust_stats.csv").open(encoding="utf-8", newline="") as file:
        return {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}


def test_the_short_form_serves_measures_judges_and_reports(store: Store, tmp_path: Path) -> None:
    lax = tmp_path / "lax.toml"
    lax.write_text(LAX)
    out = tmp_path / "report"
    done = load_test("--short", "--out", str(out), "--thresholds", str(lax), "--processes", "2", **store.environment)
    assert done.returncode == 0, done.stderr
    said = last_line(done)
    assert said["violations"] == []
    assert said["failed"] == 0
    assert said["service"]["artifact"] == store.tag
    assert said["machine"]["cores"] >= 1
    assert [(row["phase"], row["users"]) for row in said["steps"]] == [
        ("up", 1),
        ("up", 4),
        ("up", 16),
        ("recovery", 1),
    ]
    assert all(0 < row["search_p99_ms"] < row["response_p95_ms"] for row in said["steps"])

    found = rows(out)
    for kind in ("search_images", "search_text", "search_similar"):
        for stage in ("encode", "search", "total"):
            assert int(found["STAGE", f"{kind} {stage}, µs"]["Request Count"]) > 0
    assert ("STAGE", "encode_text search, µs") not in found, "encoding searches nothing"
    requests = sum(int(row["Request Count"]) for (kind, _), row in found.items() if kind in {"GET", "POST"})
    assert int(found["", "Aggregated"]["Request Count"]) == requests, "stages are not counted as requests"
    searches = sum(
        int(row["Request Count"]) for (kind, name), row in found.items() if name == "search_images search, µs"
    )
    assert searches < int(found["POST", "/search/images"]["Request Count"]), "cached answers have no stages"
    assert any(name.endswith(")") for _, name in found), "bad input was sent"

    assert (out / "locust.html").stat().st_size > 0
    with Image.open(out / "load.png") as image:
        assert image.width > 600
    kept = json.loads((out / "load.json").read_text(encoding="utf-8"))
    assert [kept_step["users"] for kept_step in kept["steps"]] == [4, 1, 4, 16, 1]


def test_an_impossible_threshold_is_named_and_makes_the_exit_status_1(service: Server, tmp_path: Path) -> None:
    impossible = tmp_path / "impossible.toml"
    impossible.write_text(LAX.replace("10_000", "0.000001"))
    options = ("--host", service.url, "--steps", "1,2", "--step-seconds", "2", "--out", str(tmp_path / "report"))
    done = load_test(*options, "--thresholds", str(impossible))
    assert done.returncode == 1, done.stderr
    violations = last_line(done)["violations"]
    assert violations
    assert all(line.startswith("search p99 at ") and line.endswith("limit 1e-06 ms") for line in violations)
    assert f"violated: {violations[0]}" in done.stderr.splitlines()


def test_requests_that_are_turned_away_are_counted_apart(launch: Launch, store: Store, tmp_path: Path) -> None:
    port = free_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_MAX_PENDING": "1"}
    url = launch(bentoml_serve(port), port, **settings).wait_until_ready().url
    out = tmp_path / "report"
    done = load_test("--host", url, "--steps", "1,12", "--step-seconds", "3", "--out", str(out), "--no-thresholds")
    assert done.returncode == 0, done.stderr
    said = last_line(done)
    assert said["turned_away"] > 0
    assert said["failed"] == 0
    assert any(kind == "TURNED AWAY" for kind, _ in rows(out))


def test_a_host_that_is_not_there_cannot_be_tested(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = load_test("--host", url, "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{url} cannot be tested" in done.stderr
