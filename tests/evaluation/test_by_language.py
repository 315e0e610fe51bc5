"""Recall by language: each as if the collection had its captions alone; on the squares of ``samples.py``."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import read_source
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.evaluation.by_language import by_language
from clip_retrieval.evaluation.direction import Pool
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset, of_artifact, of_source
from clip_retrieval.evaluation.evaluate import evaluate
from clip_retrieval.evaluation.report import GalleryQuality, LanguageQuality
from clip_retrieval.progress import Silent
from tests.samples import write_images

LANGUAGES = ("en", "de", None)


@pytest.fixture(scope="module")
def squares(fake_artifact: Artifact) -> EmbeddedDataset:
    return of_artifact("squares", fake_artifact)


def in_languages(data: EmbeddedDataset, languages: Sequence[str | None]) -> EmbeddedDataset:
    """The collection, whose captions have these languages in turn."""
    captions = [
        dataclasses.replace(caption, language=languages[caption.row % len(languages)]) for caption in data.captions
    ]
    return dataclasses.replace(data, captions=captions)


def whole(data: EmbeddedDataset) -> GalleryQuality:
    return evaluate(data, "all", Silent(), resamples=10).galleries[-1]


def by_name(gallery: GalleryQuality) -> dict[str | None, LanguageQuality]:
    return {one.language: one for one in gallery.languages}


def test_a_language_is_measured_as_if_its_captions_were_the_only_ones(squares: EmbeddedDataset) -> None:
    data = in_languages(squares, LANGUAGES)
    found = by_name(whole(data))
    assert list(found) == ["de", "en", None], "by name; captions without a language come last"
    for language, one in found.items():
        alone = [caption for caption in data.captions if caption.language == language]
        expected = whole(dataclasses.replace(data, captions=alone))
        assert (one.captions, one.images) == (len(alone), len({caption.image_row for caption in alone}))
        assert one.text_to_image.model_copy(update={"worst": expected.text_to_image.worst}) == expected.text_to_image
        assert one.image_to_text.model_copy(update={"worst": expected.image_to_text.worst}) == expected.image_to_text
        assert (one.text_to_image.candidates, one.image_to_text.candidates) == (24, len(alone))


def test_every_caption_is_counted_once(squares: EmbeddedDataset) -> None:
    for gallery in evaluate(in_languages(squares, LANGUAGES), "all", Silent(), resamples=10).galleries:
        assert sum(one.captions for one in gallery.languages) == gallery.captions
        assert sum(one.text_to_image.queries for one in gallery.languages) == gallery.text_to_image.queries


def test_spellings_of_one_language_are_one(squares: EmbeddedDataset) -> None:
    found = whole(in_languages(squares, ["pt-BR", "pt_br", "PT-br", "pt"])).languages
    assert [(one.language, one.captions) for one in found] == [("pt", 12), ("pt-BR", 36)]


def test_of_very_many_languages_those_with_the_most_captions_are_measured(squares: EmbeddedDataset) -> None:
    rng = np.random.default_rng(0)
    vectors = squares.image_vectors
    pool = Pool(vectors, vectors[rng.integers(24, size=400)], rng.integers(24, size=400))
    languages = ["big" if row % 2 else "none" if row % 4 else f"value {row}" for row in range(400)]
    found, left_out = by_language(
        pool, languages, pool.ranks("text_to_image", int), Silent(), name="all", resamples=2, seed=0, most=3
    )
    assert ([one.language for one in found], left_out) == (["big", "none", "value 0"], 99)
    assert whole(in_languages(squares, ["a", "b"])).languages_left_out == 0


def test_without_languages_nothing_is_added(squares: EmbeddedDataset) -> None:
    assert whole(squares).languages == ()


@pytest.mark.parametrize("column", ["lang", "Language"])
def test_a_column_of_the_image_is_the_language_of_its_captions(squares: EmbeddedDataset, column: str) -> None:
    """As in artifacts that were built before captions had a language."""
    values = ["fi", " fi ", "sw", None]
    images = [
        dataclasses.replace(image, metadata={**image.metadata, column: values[image.row % 4]})
        for image in squares.images
    ]
    found = by_name(whole(dataclasses.replace(squares, images=images)))
    assert {language: (one.images, one.captions) for language, one in found.items()} == {
        "fi": (12, 24),
        "sw": (6, 12),
        None: (6, 12),
    }


def test_a_caption_without_a_language_beside_others_gets_none_from_its_image(squares: EmbeddedDataset) -> None:
    images = [dataclasses.replace(image, metadata={"lang": "en"}) for image in squares.images]
    data = in_languages(dataclasses.replace(squares, images=images), ["en", None])
    assert [(one.language, one.captions) for one in whole(data).languages] == [("en", 24), (None, 24)]


def test_a_table_with_one_row_a_caption_gives_each_its_language(encoder_folder: Path, tmp_path: Path) -> None:
    names = ("red-bright.png", "blue-bright.png", "green-bright.png")
    write_images(tmp_path / "data", names)
    rows = [
        {"image": name, "caption": caption, "lang": language}
        for name, colour in zip(names, ("red", "blue", "green"), strict=True)
        for language, caption in (("en", f"a {colour} square"), ("de", f"ein Quadrat in {colour}"), ("xx", "anything"))
    ]
    table = tmp_path / "data" / "captions.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = of_source(
        read_source(tmp_path / "data", Silent()), encoder_folder, tmp_path / "cache", Options(), Silent()
    )
    built = build(tmp_path / "data", encoder_folder, tmp_path / "builds", Options(), Silent()).artifact
    for data in (source, of_artifact("built", built)):
        found = by_name(whole(data))
        assert {language: one.captions for language, one in found.items()} == {"de": 3, "en": 3, "xx": 3}
        assert [found[name].text_to_image.metrics.recall_at_1 for name in ("en", "de")] == [1, 1]
        assert [found[name].image_to_text.metrics.recall_at_1 for name in ("en", "de")] == [1, 1]
        assert found["xx"].text_to_image.metrics.recall_at_1 == pytest.approx(1 / 3), "all ask for the first image"


def test_the_json_can_be_read_again(squares: EmbeddedDataset) -> None:
    quality = evaluate(in_languages(squares, LANGUAGES), "all", Silent(), resamples=10)
    read = type(quality).model_validate(json.loads(quality.model_dump_json()))
    assert read == quality
    assert read.galleries[-1].languages[0].language == "de"
