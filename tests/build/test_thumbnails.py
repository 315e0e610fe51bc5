"""Thumbnails of a build: the finest plan within the budget, made once per distinct image, resumed after a kill."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_retrieval.artifacts.thumbnails import Thumbnails
from clip_retrieval.build.embed import Embedder, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.thumbnails import ThumbnailPlans, thumbnail_notes
from clip_retrieval.build.validate import validate
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import PLANS, Plan, shrink
from clip_retrieval.progress import Silent
from clip_retrieval.records import CaptionedImage, ValidImage
from tests.samples import MemoryBlob, png

LIMITS = Limits()
AMPLE = 10**9
QUICK = (Plan(80, 160, 90), Plan(80, 128, 70), Plan(80, None, 70), Plan(40, None, 50))
"""Plans like the real ones, of which a test can make many."""
NOBODY = KnownArtifacts((), FakeEncoder().info)


def noise(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """An image that compresses badly."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


ITEMS = [CaptionedImage(str(seed), MemoryBlob(f"{seed}.png", png(noise(seed)))) for seed in range(6)]


@pytest.fixture
def images() -> list[ValidImage]:
    """Six images of noise, validated."""
    return validate(ITEMS).kept


def write(
    images: Sequence[ValidImage], work: Path, budget: int, plans: Sequence[Plan] = QUICK, first: int = 0
) -> Plan | None:
    """Write ``out`` in the folder ``work``, from images that are decoded again."""
    work.mkdir(exist_ok=True)
    return ThumbnailPlans(work, budget, NOBODY, plans).write(first, images, work / "out", LIMITS, Silent())


def size_with(images: Sequence[ValidImage], work: Path, plan: Plan) -> int:
    """How many bytes the file has with one plan alone."""
    assert write(images, work, AMPLE, (plan,)) == plan
    return (work / "out").stat().st_size


def assert_thumbnails_of(images: Sequence[Image.Image], out: Path, plan: Plan) -> None:
    with closing(Thumbnails.open(out)) as thumbnails:
        assert [thumbnails.both(row) for row in range(len(images))] == [shrink(image, plan) for image in images]
        assert thumbnails.both(len(images)) is None


class TestPlan:
    def test_the_finest_plan_that_fits_is_taken(self, images: list[ValidImage], tmp_path: Path) -> None:
        sizes = [size_with(images, tmp_path / str(number), plan) for number, plan in enumerate(QUICK)]
        assert sizes == sorted(sizes, reverse=True), "each plan is smaller than the one before"
        for number, plan in enumerate(QUICK):
            work = tmp_path / f"fit {number}"
            assert write(images, work, sizes[number]) == plan
            assert (work / "out").stat().st_size == sizes[number]

    def test_a_sample_says_which_plan_should_fit(self, tmp_path: Path) -> None:
        first = [
            ThumbnailPlans(tmp_path, budget, NOBODY, QUICK).first(ITEMS, LIMITS, Silent())
            for budget in (150_000, 100_000, 40_000, 20_000, 1)
        ]
        assert first == [0, 1, 2, 3, 4], "half a page of SQLite is added to each file"

    def test_a_sample_of_a_large_source_counts_for_all_of_it(self, tmp_path: Path) -> None:
        unreadable = [CaptionedImage(f"x{n}", MemoryBlob(f"x{n}", None)) for n in range(6)]
        budget = 100_000
        for items, number in (([*ITEMS, *unreadable], 1), ([*ITEMS, *unreadable] * 100, 4)):
            assert ThumbnailPlans(tmp_path, budget, NOBODY, QUICK).first(items, LIMITS, Silent()) == number

    def test_without_a_budget_there_is_no_plan_and_nothing_is_decoded(self, tmp_path: Path) -> None:
        unreadable = [CaptionedImage("a", MemoryBlob("a", None))]
        plans = ThumbnailPlans(tmp_path, 0, NOBODY, QUICK)
        assert plans.first(unreadable, LIMITS, Silent()) == len(QUICK)
        with plans.open(len(QUICK)) as cache:
            assert cache is None

    @pytest.mark.parametrize("budget", [1, 25_000, 60_000])
    def test_the_file_never_exceeds_the_budget(self, images: list[ValidImage], tmp_path: Path, budget: int) -> None:
        plan = write(images, tmp_path, budget)  # from the first plan on: an estimate that is too optimistic
        assert (plan is None) == (not (tmp_path / "out").exists())
        assert plan is None or (tmp_path / "out").stat().st_size <= budget

    @pytest.mark.parametrize(
        ("plan", "words"), [(PLANS[1], "do not"), (None, "no thumbnails"), (PLANS[0], None)], ids=str
    )
    def test_a_note_says_what_does_not_fit(self, plan: Plan | None, words: str | None) -> None:
        notes = thumbnail_notes(plan, 7)
        assert len(notes) == (words is not None)
        assert all(words in note and "--thumbnails-mb 7" in note for note in notes if words)


class TestPass:
    """Thumbnails that are made beside the embedding."""

    def embed(self, items: Sequence[CaptionedImage], work: Path, budget: int = AMPLE) -> Plan | None:
        info = FakeEncoder().info
        work.mkdir(exist_ok=True)
        plans = ThumbnailPlans(work, budget, NOBODY, QUICK)
        with closing(Embedder(FakeEncoder, info.dim, work, NOBODY)) as embedder, plans.open(0) as cache:
            kept = embed_images(items, embedder, LIMITS, cache).kept
        return plans.write(0, kept, work / "out", LIMITS, Silent())

    def test_rows_are_the_rows_of_the_records(self, tmp_path: Path) -> None:
        items = [
            *ITEMS[:2],
            CaptionedImage("bad", MemoryBlob("bad", b"")),
            *ITEMS[2:],
            replace(ITEMS[0], image_id="0b"),
        ]
        assert self.embed(items, tmp_path) == QUICK[0]
        assert_thumbnails_of([noise(seed) for seed in (*range(6), 0)], tmp_path / "out", QUICK[0])

    def test_images_are_not_read_again(self, tmp_path: Path) -> None:
        class OnceBlob(MemoryBlob):
            def read(self, limit: int) -> bytes:
                assert self.name not in reads, "it is read twice"
                reads.add(self.name)
                return super().read(limit)

        reads: set[str] = set()
        items = [replace(item, blob=OnceBlob(item.blob.name, item.blob.read(10**9))) for item in ITEMS]
        assert self.embed(items, tmp_path) == QUICK[0]
        assert len(reads) == len(ITEMS)

    def test_a_plan_that_turns_out_too_large_gives_way_to_the_next(
        self, images: list[ValidImage], tmp_path: Path
    ) -> None:
        room = size_with(images, tmp_path / "alone", QUICK[2])
        assert self.embed(ITEMS, tmp_path / "pass", room) == QUICK[2]
        assert_thumbnails_of([noise(seed) for seed in range(6)], tmp_path / "pass" / "out", QUICK[2])
        assert (tmp_path / "pass" / "out").read_bytes() == (tmp_path / "alone" / "out").read_bytes()


class TestResuming:
    def test_thumbnails_that_were_made_before_a_stop_are_not_made_again(
        self, images: list[ValidImage], tmp_path: Path
    ) -> None:
        gone = replace(images[0], blob=MemoryBlob("0.png", None))
        write(images[:4], tmp_path, AMPLE)
        assert write([gone, *images[1:]], tmp_path, AMPLE) == QUICK[0], "image 0 is not read again"
        assert_thumbnails_of([noise(seed) for seed in range(6)], tmp_path / "out", QUICK[0])

    def test_the_file_is_the_same_as_without_the_stop(self, images: list[ValidImage], tmp_path: Path) -> None:
        write(images[3:], tmp_path / "stopped", AMPLE)
        for name in ("stopped", "whole"):
            write(images, tmp_path / name, AMPLE)
        assert (tmp_path / "stopped" / "out").read_bytes() == (tmp_path / "whole" / "out").read_bytes()

    def test_a_plan_that_was_given_up_before_a_stop_is_not_tried_again(
        self, images: list[ValidImage], tmp_path: Path
    ) -> None:
        room = size_with(images, tmp_path / "alone", QUICK[3])
        assert write(images, tmp_path, room) == QUICK[3]
        gone = [replace(image, blob=MemoryBlob(image.blob.name, None)) for image in images]
        assert write(gone, tmp_path, room) == QUICK[3], "no image is read again"

    def test_images_that_are_no_longer_in_the_source_do_not_count(
        self, images: list[ValidImage], tmp_path: Path
    ) -> None:
        write(images, tmp_path, AMPLE)
        room = size_with(images[:3], tmp_path / "alone", QUICK[0])
        assert write(images[:3], tmp_path, room) == QUICK[0]
        assert (tmp_path / "out").read_bytes() == (tmp_path / "alone" / "out").read_bytes()


def test_an_image_that_changed_since_it_was_validated_stops_the_build(images: list[ValidImage], tmp_path: Path) -> None:
    images[3] = replace(images[3], blob=MemoryBlob("3.png", png(noise(99))))
    with pytest.raises(SourceError, match=r"3\.png is no longer the image that was validated"):
        write(images, tmp_path, AMPLE)
