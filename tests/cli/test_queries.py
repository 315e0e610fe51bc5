"""``bento-clip queries``, and ``evaluate`` and ``tune`` with what a service was asked."""

import json
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli.traffic import traffic_of
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.evaluation.embedded_dataset import of_artifact
from clip_retrieval.evaluation.index_report import index_quality
from clip_retrieval.progress import Silent
from clip_retrieval.query_log.entry import LoggedClick, LoggedPart, LoggedSearch, line_of, now, packed
from clip_retrieval.query_log.writer import LogWriter
from tests.cli.test_app import Cli, cli

__all__ = ["cli"]


def asked(number: int, words: str) -> LoggedSearch:
    part = LoggedPart(text=words)
    return LoggedSearch(search_id=f"{number:032x}", at=now(), target="images", inputs="texts", parts=(part,))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """120 searches for colours, one click on the red one, and two searches of another collection."""
    writer = LogWriter(tmp_path / "log", 2**20)
    for number in range(120):
        writer.put("squares", line_of(asked(number, COLOURS[number % 8] if number else "red")))
    writer.put("squares", line_of(LoggedClick(search_id="0" * 32, at=now(), image_id="red-bright.png")))
    for number in range(2):
        writer.put("cats", line_of(asked(number, "a cat")))
    writer.close()
    return tmp_path / "log"


def test_what_came_most_often_is_shown_for_each_collection(cli: Cli, log: Path) -> None:
    done = cli("queries", "show", "--log", log)
    assert done.status == 0
    said = " ".join(done.err.split())
    assert "cats: 2 searches, 0 clicks" in said
    assert "squares: 120 searches, 1 clicks" in said
    [only] = json.loads(cli("queries", "show", "--log", log, "--collection", "squares", "-k", 1, "--json").out)
    assert only["most_frequent"] == [{"search": "red", "times": 16, "opened": 1}]


def test_an_export_has_every_line_with_its_collection(cli: Cli, log: Path) -> None:
    lines = [json.loads(line) for line in cli("queries", "export", "--log", log).out.splitlines()]
    assert len(lines) == 123
    assert lines[0]["collection"] == "cats"
    assert lines[0]["parts"] == [{"text": "a cat", "weight": 1.0}]
    assert {line["kind"] for line in lines} == {"search", "click"}


def test_an_export_into_the_folder_of_the_log_hides_nothing(cli: Cli, log: Path) -> None:
    shown = cli("queries", "show", "--log", log, "--json").out
    (log / "exported.jsonl").write_text(cli("queries", "export", "--log", log).out)
    assert cli("queries", "show", "--log", log, "--json").out == shown


def test_a_log_is_cleared_for_one_collection_or_for_all(cli: Cli, log: Path) -> None:
    assert "removed 1 files" in cli("queries", "clear", "--log", log, "--collection", "cats").err
    assert [json.loads(line)["collection"] for line in cli("queries", "export", "--log", log).out.splitlines()] == [
        "squares"
    ] * 121
    assert cli("queries", "clear", "--log", log).status == 0
    assert "holds no query log" in cli("queries", "show", "--log", log).err


def test_an_index_is_measured_with_what_was_asked_of_it(log: Path, fake_artifact: Artifact) -> None:
    data = of_artifact("squares", fake_artifact)
    traffic = traffic_of(log, fake_artifact, data)
    images, captions = index_quality(fake_artifact, data, Silent(), asked=traffic.queries)
    assert (images.queries, images.logged, images.query_kind, images.recall_at_10) == (120, True, "captions", 1)
    assert {query.query for query in images.slowest} <= set(COLOURS)
    assert (captions.queries, captions.logged) == (24, False)
    assert traffic.clicked is not None
    assert traffic.clicked.recall["recall_at_1"] == 1


@pytest.mark.slow
def test_an_evaluation_takes_what_was_asked_and_what_was_opened(
    cli: Cli, log: Path, fake_artifact: Artifact, tmp_path: Path
) -> None:
    done = cli("evaluate", fake_artifact.path, "--split", "all", "--queries", log, "--output", tmp_path / "r", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["queries"]["searches"] == {"images": 120}
    assert found["queries"]["clicked"]["searches"] == 1
    assert found["queries"]["clicked"]["recall"]["recall_at_1"] == 1
    assert [(one["index"], one["queries"], one["logged"]) for one in found["index"]] == [
        ("images", 120, True),
        ("captions", 24, False),
    ]
    assert json.loads((tmp_path / "r" / "queries.json").read_text()) == found["queries"]


def test_an_evaluation_of_a_source_has_no_query_log(cli: Cli, log: Path, collection: Path) -> None:
    done = cli("evaluate", collection, "--queries", log)
    assert done.status == 2
    assert "a query log is of an artifact that was served" in " ".join(done.err.split())


def test_vectors_of_another_encoder_are_refused_with_words(cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
    vector = packed(FakeEncoder().encode_texts(["red"])[0])
    writer = LogWriter(tmp_path / "log", 2**20)
    one = LoggedSearch(search_id="0" * 32, at=now(), target="images", inputs="texts", encoder="f" * 64, vector=vector)
    writer.put("squares", line_of(one))
    writer.close()
    done = cli("tune", fake_artifact.path, "--queries", tmp_path / "log")
    assert done.status == 1
    assert "1 vectors are those of another encoder (ffffffffffff)" in done.err


@pytest.mark.slow
def test_tuning_takes_what_was_asked_where_that_is_enough(cli: Cli, log: Path, stored_tag: str, tmp_path: Path) -> None:
    done = cli("tune", stored_tag, "--queries", log, "--report", tmp_path / "r", "--recall", 0.5, "--json")
    assert done.status == 0, done.err
    said = " ".join(done.err.split())
    assert "images: tuned with 120 logged searches" in said
    assert "captions: 0 logged searches are too few, 100 do; tuned with the collection's own" in said
    indexes = json.loads(done.out)["indexes"]
    assert (indexes["images"]["chosen"]["queries"], indexes["captions"]["chosen"]["queries"]) == (60, 12)
