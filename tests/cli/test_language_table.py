"""Recall by language for people: a row a language, with its count, and what must be known to read it."""

import dataclasses

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli import console, language_table
from clip_retrieval.evaluation.embedded_dataset import of_artifact
from clip_retrieval.evaluation.evaluate import evaluate
from clip_retrieval.evaluation.report import GalleryQuality
from clip_retrieval.progress import Silent


def gallery(artifact: Artifact, *languages: str | None) -> GalleryQuality:
    data = of_artifact("squares", artifact)
    captions = [dataclasses.replace(one, language=languages[one.row % len(languages)]) for one in data.captions]
    return evaluate(dataclasses.replace(data, captions=captions), "all", Silent(), resamples=2).galleries[-1]


def drawn(shown: GalleryQuality, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    console.table(language_table.language_table(shown))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    return [line.replace("│", " ").split() for line in lines]


def test_a_language_is_a_row_with_its_count_and_both_directions(
    fake_artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = gallery(fake_artifact, "en", "de", "de", None, "[red]fi[/red]")
    rows = drawn(shown, capsys)
    for one, name in zip(shown.languages, (["[red]fi[/red]"], ["de"], ["en"], ["not", "given"]), strict=True):
        ways = (one.text_to_image.metrics, one.image_to_text.metrics)
        recalls = [f"{recall:.3f}" for way in ways for recall in (way.recall_at_1, way.recall_at_5, way.recall_at_10)]
        assert [*name, str(one.captions), *recalls] in rows


def test_few_captions_are_said(fake_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = gallery(fake_artifact, "en", "en", "en", "de")
    assert "few captions: de (12), en (36); quality.json has the intervals" in language_table.language_notes(shown)
    monkeypatch.setattr(language_table, "FEW_CAPTIONS", 36)
    assert "few captions: de (12); quality.json has the intervals" in language_table.language_notes(shown)
    monkeypatch.setattr(language_table, "FEW_CAPTIONS", 12)
    assert len(language_table.language_notes(shown)) == 1


def test_languages_that_were_left_out_are_said(fake_artifact: Artifact) -> None:
    shown = gallery(fake_artifact, "en", "de").model_copy(update={"languages_left_out": 1200})
    notes = language_table.language_notes(shown)
    assert notes[-1] == "1,200 more values of the language, those with the fewest captions, were not measured"
