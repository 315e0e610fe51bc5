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

from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.e2e.conftest import Launch, Server, Store

pytestmark = pytest.mark.e2e

TIMEOUT_S = 180
LAX = """
max_failures = 0
[[limits]]
measure = "search"
percentile = 99
max_ms = 10_000
steps = "to saturation"
[[limits]]
measure = "composed_search"
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
    for kind in ("search_images", "search_text", "search_similar", "search"):
        for stage in ("encode", "search", "total"):
            assert int(found["STAGE", f"{kind} {stage}, µs"]["Request Count"]) > 0
    assert ("STAGE", "encode_text search, µs") not in found, "encoding searches nothing"
    requests = sum(int(row["Request Count"]) for (kind, _), row in found.items() if kind in {"GET", "POST"})
    assert int(found["", "Aggregated"]["Request Count"]) == requests, "stages are not counted as requests"
    searches = sum(
        int(row["Request Count"]) for (kind, name), row in found.items() if name == "search_images search, µs"
    )
    assert searches < int(found["POST", "/search/images"]["Request Count"]), "cached answers have no stages"
    assert any(name.endswith("(empty text)") for _, name in found), "bad input was sent"
    assert ("POST", "/search (words)") in found
    assert all(row["composed_search_p99_ms"] > 0 for row in said["steps"])

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
    assert all(line.endswith("limit 1e-06 ms") for line in violations)
    assert {line.partition(" at ")[0] for line in violations} == {"search p99", "composed_search p99"}
    assert f"violated: {violations[0]}" in done.stderr.splitlines()


def test_what_an_overloaded_service_rejects_is_counted_apart(launch: Launch, store: Store, tmp_path: Path) -> None:
    port = reserve_port()
    settings = {"BENTO_CLIP_ARTIFACT": store.tag, "BENTO_CLIP_MAX_PENDING": "1"}
    url = launch(bentoml_serve(port), port, **settings).wait_until_ready().url
    out = tmp_path / "report"
    done = load_test("--host", url, "--steps", "1,12", "--step-seconds", "3", "--out", str(out), "--no-thresholds")
    assert done.returncode == 0, done.stderr
    said = last_line(done)
    assert said["rejected"] > 0
    assert said["failed"] == 0
    assert any(kind == "REJECTED" for kind, _ in rows(out))


def test_composed_searches_alone_go_through_pages_parts_and_filters(photographs: Server, tmp_path: Path) -> None:
    lax = tmp_path / "lax.toml"
    lax.write_text(LAX)
    out = tmp_path / "report"
    options = ("--users", "ComposedSearch", "--steps", "1,4", "--step-seconds", "4", "--out", str(out))
    done = load_test("--host", photographs.url, *options, "--thresholds", str(lax))
    assert done.returncode == 0, done.stderr
    said = last_line(done)
    assert said["search_p99_ms"] is None, "no short route was asked, and its limit does not apply"
    assert said["composed_search_p99_ms"] > 0
    names = {name for kind, name in rows(out) if kind == "POST"}
    searches = ("words", "next page", "words subtracted", "image of the collection", "captions", "filtered")
    assert names == {f"/search ({name})" for name in (*searches, "near-duplicates folded")}


def test_rows_and_a_host_exclude_each_other(tmp_path: Path) -> None:
    done = load_test("--host", "http://127.0.0.1:1", "--rows", "10", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "--rows makes its own collection" in done.stderr


def test_a_host_that_is_not_there_cannot_be_tested(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{reserve_port()}"
    done = load_test("--host", url, "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{url} cannot be tested" in done.stderr
