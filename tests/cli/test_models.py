"""``bento-clip models``: a table of models, filtered by language, memory and work."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from clip_retrieval.cli import console
from clip_retrieval.cli.app import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``bento-clip models`` with options: the exit status, standard output and standard error."""
    for output in (console.out, console.err):
        monkeypatch.setattr(output, "width", 100)

    def run(*options: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bento-clip", "models", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def rows(done: tuple[int, str, str]) -> list[dict[str, Any]]:
    assert done[0] == 0
    found: list[dict[str, Any]] = json.loads(done[1])["models"]
    return found


def test_the_table_shows_names_as_build_takes_them(models: Run) -> None:
    status, out, err = models("--languages", "de,fi", "--memory-mb", 1500)
    assert status == 0
    assert all(word in out for word in ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "German", "Finnish", "mean"))
    assert "RN50" not in out, "it has no figure for Finnish"
    assert "measured by Immich" in err


def test_every_filter_holds_for_every_row(models: Run) -> None:
    found = rows(models("--languages", "de,fi", "--memory-mb", 2000, "--image-gflops", 40, "--json"))
    assert found
    for row in found:
        assert row["memory_mb"] <= 2000
        assert row["image_gflops"] <= 40
        assert row["mean_recall"] == pytest.approx((row["recall"]["de"] + row["recall"]["fi"]) / 2)
    means = [row["mean_recall"] for row in found]
    assert means == sorted(means, reverse=True), "the best comes first"


def test_without_filters_every_model_is_listed_with_the_source(models: Run) -> None:
    status, out, _ = models("--json")
    assert status == 0
    assert json.loads(out)["recall_source"].startswith("https://github.com/immich-app/immich/blob/")
    assert "demo" in {row["model"] for row in json.loads(out)["models"]}


def test_nothing_that_fits_is_said(models: Run) -> None:
    status, out, err = models("--languages", "quz", "--memory-mb", 10)
    assert (status, out) == (0, "")
    assert "no model of the table fits" in err


def test_a_language_that_the_table_does_not_have_is_refused(models: Run) -> None:
    status, out, err = models("--languages", "de,klingon")
    assert (status, out) == (1, "")
    assert "error: the table of models has no figures for the language 'klingon'" in err
    assert "fi (Finnish)" in err
