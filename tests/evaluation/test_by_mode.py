"""Searches by words, vectors and both, measured: the query's own caption helps no word, and names are asked for."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.evaluation.by_mode import FRONT, by_mode
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset, of_artifact
from clip_retrieval.evaluation.recall import text_to_image
from clip_retrieval.records import MODES, CaptionRecord, ImageRecord, Scalar
from clip_retrieval.search.ranking import FRONT_ROWS

DIM = 16


def units(rows: int, seed: int) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM)))


def collection(captions: Sequence[Sequence[str]], *, path: str = "photo.jpg", **metadata: Scalar) -> EmbeddedDataset:
    """One image for each list of captions. Captions are as far from their image as from any other."""
    images = [
        ImageRecord(row, f"i{row}", path.format(row), "0" * 64, 1, 1, "train", dict(metadata))
        for row in range(len(captions))
    ]
    records = [(row, text) for row, texts in enumerate(captions) for text in texts]
    return EmbeddedDataset(
        name="made",
        encoder=FakeEncoder().info,
        data_fingerprint="0" * 64,
        images=images,
        captions=[CaptionRecord(n, f"c{n}", row, text) for n, (row, text) in enumerate(records)],
        image_vectors=units(len(images), 1),
        caption_vectors=units(len(records), 2),
        blobs={},
    )


class Anywhere(FakeEncoder):
    """Texts are as far from an image as from any other."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.asked.extend(texts)
        return units(len(self.asked), 3)[-len(texts) :]


def test_vectors_have_the_recall_of_the_usual_evaluation(fake_artifact: Artifact) -> None:
    data = of_artifact("squares", fake_artifact)
    image_of = np.array([caption.image_row for caption in data.captions], np.int64)
    ranks = text_to_image(data.caption_vectors, data.image_vectors, image_of).values
    [one] = by_mode(data, FakeEncoder())
    assert one.recalls["vector"] == {f"recall_at_{k}": pytest.approx((ranks <= k).mean()) for k in (1, 5, 10)}
    assert one.recalls.keys() == set(MODES)
    assert (one.kind, one.queries) == ("captions", 48)


def test_the_querys_own_caption_finds_nothing() -> None:
    alone = collection([[f"word{row}"] for row in range(50)])
    one, _ = by_mode(alone, Anywhere())
    assert one.recalls["words"] == {"recall_at_1": 0, "recall_at_5": 0, "recall_at_10": 0}
    assert one.recalls["both"] == one.recalls["vector"]
    assert set(one.gain.values()) == {0}


def test_another_caption_of_the_image_does() -> None:
    one, _ = by_mode(collection([[f"word{row}", f"again word{row}"] for row in range(50)]), Anywhere())
    assert one.recalls["words"]["recall_at_1"] == 1
    assert one.gain["recall_at_1"] > 0.3
    ends = one.gain_intervals["recall_at_1"]
    assert 0 < ends.low < one.gain["recall_at_1"] < ends.high <= 1


def test_named_captions_ask_for_names_that_no_caption_has() -> None:
    encoder = Anywhere()
    data = collection([["a dog"] for _ in range(30)], path="album/dog_{:04d}.jpg", place="Rome", year=2024)
    plain, named = by_mode(data, encoder)
    assert (plain.kind, named.kind) == ("captions", "named captions")
    assert encoder.asked == [f"a dog {row:04d} i{row}" for row in range(30)], "not album, jpg or Rome, which all share"
    assert named.recalls["words"]["recall_at_1"] == 1
    assert named.recalls["both"]["recall_at_1"] > named.recalls["vector"]["recall_at_1"] + 0.5


def test_without_names_or_captions_there_is_less_to_measure() -> None:
    assert len(by_mode(collection([["a dog"]] * 5, path="dog.jpg"), Anywhere())) == 2, "ids are names"
    assert by_mode(dataclasses.replace(collection([["a"]]), captions=[]), Anywhere()) == ()


def test_of_many_captions_some_are_drawn() -> None:
    data = collection([[f"word{row}"] for row in range(60)])
    assert [one.queries for one in by_mode(data, Anywhere(), most=20)] == [20, 20]


def test_the_front_is_that_of_a_search() -> None:
    assert FRONT == FRONT_ROWS
