"""Fine-tuning without torch: batches and masks, the guard's rule, the sides of the data, and the command's refusals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import read_source
from clip_retrieval.cli.app import app
from clip_retrieval.errors import InvalidQuery, SourceError
from clip_retrieval.evaluation.recall import Ranks
from clip_retrieval.finetuning import data as sides
from clip_retrieval.finetuning import guard
from clip_retrieval.finetuning.guard import Gain, Ranked, gain, judge
from clip_retrieval.finetuning.pairs import Pairs, TrainingImage
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from tests.samples import MemoryBlob, write_collection, write_tiles

SPLIT = (0.5, 0.45, 0.05)


def image(name: str, captions: Sequence[str], pixels: str | None = None) -> TrainingImage:
    """An image whose pixels are identified by a word: by default its own name."""
    return TrainingImage(MemoryBlob(name, b""), pixels or name, tuple(captions), None)


PAIRS = Pairs([
    image("a", ["a fox", "a red fox"]),
    image("b", ["An  OWL"]),
    image("no captions", []),
    image("c", ["an owl", "a bird"]),
    image("a again", ["a small fox"], pixels="a"),
])  # fmt: skip


class TestPairs:
    def test_images_without_captions_are_left_out(self) -> None:
        assert [image.blob.name for image in PAIRS.images] == ["a", "b", "c", "a again"]
        assert PAIRS.image_of.tolist() == [0, 0, 1, 2, 2, 3]

    def test_a_caption_is_true_of_its_own_image_of_equal_images_and_where_its_words_are_repeated(self) -> None:
        described = PAIRS.described(np.arange(4), np.arange(6)).astype(int)
        # captions:      a fox, a red fox, An OWL, an owl, a bird, a small fox
        assert described.tolist() == [
            [1, 1, 0, 0, 0, 1],  # a, and what is said of the equal image
            [0, 0, 1, 1, 0, 0],  # b, and the same words of c
            [0, 0, 1, 1, 1, 0],  # c
            [1, 1, 0, 0, 0, 1],  # a again
        ]

    @given(st.integers(2, 40), st.integers(2, 50), st.integers(0, 3), st.integers(0, 5))
    def test_an_epoch_has_every_image_once_with_a_caption_of_its_own(
        self, count: int, size: int, views: int, epoch: int
    ) -> None:
        pairs = Pairs([image(str(number), [f"{number} {k}" for k in range(1 + number % 3)]) for number in range(count)])
        batches = list(pairs.batches(epoch, size, views, seed=0))
        assert len(batches) == pairs.steps(size)
        seen = np.concatenate([batch.images for batch in batches])
        left_out = count % size == 1
        assert len(set(seen.tolist())) == len(seen) == count - left_out
        for batch in batches:
            assert 2 <= len(batch.images) <= size
            assert (pairs.image_of[batch.captions] == batch.images).all()
            assert ((batch.views >= 0) & (batch.views <= views)).all()

    def test_an_epoch_depends_on_its_number_and_the_seed_alone(self) -> None:
        def drawn(epoch: int, seed: int) -> list[int]:
            return [int(row) for batch in MANY.batches(epoch, 8, 2, seed) for row in (*batch.images, *batch.captions)]

        assert drawn(3, 0) == drawn(3, 0)
        assert drawn(3, 0) != drawn(4, 0)
        assert drawn(3, 0) != drawn(3, 1)


MANY = Pairs([image(str(number), [f"caption {number}"]) for number in range(32)])


def ranked(texts: Sequence[int], images: Sequence[int]) -> Ranked:
    """One caption an image."""
    rows = np.arange(len(images))
    return Ranked(Ranks(np.array(texts), rows), Ranks(np.array(images), rows))


def a_gain(difference: float, low: float = 0.0, high: float = 0.0) -> Gain:
    return Gain(100, 0.5, 0.5 + difference, difference, low, high)


class TestGuard:
    def test_a_gain_is_the_difference_of_the_mean_recalls(self) -> None:
        found = gain(ranked([1, 20], [6, 20]), ranked([1, 5], [1, 20]))
        # start: 3/6 + 1/6 of the hits; result: 3/6 + 2/6, and 3/6
        assert found.start == pytest.approx(np.mean([0.5, 0.5, 0.5, 0, 0, 0.5]))
        assert found.result == pytest.approx(np.mean([0.5, 1, 1, 0.5, 0.5, 0.5]))
        assert found.difference == pytest.approx(found.result - found.start)
        assert found.low <= found.difference <= found.high

    def test_the_interval_is_that_of_paired_differences(self) -> None:
        draw = np.random.default_rng(0)
        ranks = draw.integers(1, 30, size=(2, 200))
        same = gain(ranked(*ranks), ranked(*ranks))
        assert (same.difference, same.low, same.high) == (0, 0, 0), "however much the queries differ"
        better = gain(ranked(*ranks), ranked(*np.maximum(1, ranks - 3)))
        assert 0 < better.low < better.difference < better.high

    def test_captions_of_an_image_are_resampled_together(self) -> None:
        images = np.repeat(np.arange(20), 50)
        found_by = np.where(images < 10, 1, 11)  # an image's captions are all found, or none
        start = Ranked(Ranks(np.full(1000, 11), images), Ranks(np.full(20, 11), np.arange(20)))
        result = Ranked(Ranks(found_by, images), Ranks(np.full(20, 11), np.arange(20)))
        found = gain(start, result)
        assert found.difference == pytest.approx(0.25)
        assert found.high - found.low > 0.15, "as for 20 queries, not for 1,000"

    @pytest.mark.parametrize(
        ("validation", "other", "certain", "better"),
        [
            (a_gain(0.01, low=-0.05), a_gain(-0.02), False, True),
            (a_gain(0.01, low=-0.05), a_gain(-0.021), False, False),
            (a_gain(0.0), a_gain(0.5), False, False),
            (a_gain(1e-16), None, False, False),
            (a_gain(-0.01), a_gain(0.5), False, False),
            (a_gain(0.01), None, False, True),
            (a_gain(0.01, low=0.0), None, True, False),
            (a_gain(0.01, low=0.001), None, True, True),
        ],
    )
    def test_the_result_is_returned_only_if_it_is_better_and_costs_little_elsewhere(
        self, validation: Gain, other: Gain | None, certain: bool, better: bool
    ) -> None:
        verdict = judge(validation, other, tolerance=0.02, certain=certain)
        assert verdict.better is better
        assert "interval" in verdict.reason, "the figures stand beside the rule"

    def test_vectors_that_are_not_finite_are_no_better_than_the_row_order(self) -> None:
        broken = np.full((20, 4), np.nan, dtype=np.float32)
        found = guard.rank(broken, broken, np.arange(20))
        assert found.mean_recall() == pytest.approx(np.mean([1, 5, 10]) / 20)


class TestSides:
    @pytest.fixture(autouse=True)
    def bundled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """In place of the sample: 48 tiles, of which its own source calls 32 training and 16 test."""
        folder = write_tiles(tmp_path / "bundled", ["black", "white"], splits=["train", "test"])
        monkeypatch.setattr(sides, "SAMPLE", folder)
        return folder

    def test_the_bundled_photographs_are_the_other_domain_without_their_training_side(
        self, collection: Path, bundled: Path
    ) -> None:
        data = sides.from_source(read_source(collection, Silent()), None, SPLIT, 0, Limits(), Silent())
        assert (len(data.train), len(data.val), len(data.test)) == (12, 10, 2)
        assert data.other is not None
        assert (len(data.other), data.other_name) == (16, "bundled"), "the demo model was trained on the rest"

    def test_the_bundled_photographs_are_no_other_domain_than_themselves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sides, "SAMPLE", write_tiles(tmp_path / "own", ["red", "cyan"]))
        data = sides.from_source(read_source(sides.SAMPLE, Silent()), None, SPLIT, 0, Limits(), Silent())
        assert (data.other, data.other_name) == (None, None)

    def test_another_domain_must_have_images_that_the_source_has_not(self, collection: Path) -> None:
        with pytest.raises(SourceError, match="0 captioned images that are not in the source"):
            sides.from_source(read_source(collection, Silent()), str(collection), SPLIT, 0, Limits(), Silent())

    def test_too_few_images_are_refused(self, tmp_path: Path, collection: Path) -> None:
        few = write_collection(tmp_path / "few", ("red-bright.png", "blue-bright.png"))
        with pytest.raises(SourceError, match=r"train side has .* at least 10"):
            sides.from_source(read_source(few, Silent()), str(collection), (1, 0, 0), 0, Limits(), Silent())

    def test_an_artifact_gives_its_records_and_a_folder_its_images(
        self, fake_artifact: Artifact, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sides, "MIN_CAPTIONED_IMAGES", 1)
        data = sides.from_artifact(fake_artifact, collection, None, Limits(), Silent())
        counts = fake_artifact.manifest.data.splits
        assert {"train": len(data.train), "val": len(data.val), "test": len(data.test)} == counts
        assert all(image.blob.read(10**6) for image in data.train.images)
        with pytest.raises(SourceError, match="give the folder that the artifact was built from"):
            sides.from_artifact(fake_artifact, tmp_path, None, Limits(), Silent())


class TestCommand:
    def test_a_folder_that_exists_is_not_written_over(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["finetune", "x", "--output", str(tmp_path)])
        assert done.exit_code == 2
        assert "exists already" in " ".join(done.output.replace("│", " ").split())

    def test_a_tag_without_images_says_what_is_missing(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["finetune", "clip-retrieval:latest", "--output", str(tmp_path / "new")])
        assert isinstance(done.exception, InvalidQuery)
        assert "--images" in str(done.exception)
