"""Splits are drawn by image: reproducible, independent of order, and never across exact duplicates."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.build.splits import assign_splits, with_one_split
from clip_retrieval.records import SPLITS, Split, ValidImage
from tests.samples import MemoryBlob


def image(number: int, pixels: int | None = None, split: Split | None = None) -> ValidImage:
    """Image ``number``; images of equal ``pixels`` are exact duplicates."""
    return ValidImage(
        image_id=str(number),
        blob=MemoryBlob(f"{number}.jpg", None),
        content_hash=f"{number if pixels is None else pixels:064x}",
        width=1,
        height=1,
        captions=(),
        split=split,
        metadata={},
    )


def collections(splits: st.SearchStrategy[Split | None]) -> st.SearchStrategy[list[ValidImage]]:
    """Collections of few distinct images, so that many are exact duplicates."""
    rows = st.lists(st.tuples(st.integers(0, 20), splits), max_size=60)
    return rows.map(lambda rows: [image(n, pixels, split) for n, (pixels, split) in enumerate(rows)])


UNDECIDED = collections(st.none())
PARTLY_DECIDED = collections(st.none() | st.sampled_from(SPLITS))
RATIOS = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10)).map(
    lambda parts: (parts[0] / sum(parts), parts[1] / sum(parts), parts[2] / sum(parts))
)


def test_flickr8k_has_the_sizes_of_the_reference() -> None:
    sizes = Counter(assign_splits([image(n) for n in range(8091)]))
    assert sizes == {"train": 5663, "val": 1213, "test": 1215}


@given(st.integers(0, 300), st.integers())
def test_sizes_are_exact_without_duplicates(total: int, seed: int) -> None:
    sizes = Counter(assign_splits([image(n) for n in range(total)], seed=seed))
    train, val = int(0.70 * total), int(0.15 * total)
    assert [sizes[name] for name in SPLITS] == [train, val, total - train - val]


@given(UNDECIDED, RATIOS, st.integers(0, 9))
def test_no_split_exceeds_its_size_by_a_whole_group(
    images: list[ValidImage], ratios: tuple[float, float, float], seed: int
) -> None:
    sizes = Counter(assign_splits(images, ratios, seed))
    train, val = int(ratios[0] * len(images)), int(ratios[1] * len(images))
    largest = max(Counter(i.content_hash for i in images).values(), default=1)
    for name, wanted in zip(SPLITS, (train, val, len(images) - train - val), strict=True):
        assert sizes[name] - wanted < largest


@given(PARTLY_DECIDED, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(images: list[ValidImage], seed: int, shuffler: random.Random) -> None:
    expected = dict(zip([i.image_id for i in images], assign_splits(images, seed=seed), strict=True))
    shuffled = shuffler.sample(images, len(images))
    assert dict(zip([i.image_id for i in shuffled], assign_splits(shuffled, seed=seed), strict=True)) == expected


@given(PARTLY_DECIDED)
def test_exact_duplicates_are_on_one_side(images: list[ValidImage]) -> None:
    sides: dict[str, set[Split]] = {}
    for one, split in zip(images, assign_splits(images), strict=True):
        sides.setdefault(one.content_hash, set()).add(split)
    assert all(len(side) == 1 for side in sides.values())


@given(PARTLY_DECIDED)
def test_given_splits_hold_and_the_most_held_out_wins(images: list[ValidImage]) -> None:
    for one, split in zip(images, assign_splits(images), strict=True):
        decided = [i.split for i in images if i.content_hash == one.content_hash and i.split is not None]
        if decided:
            assert split == max(decided, key=SPLITS.index)


def test_undecided_images_are_divided_among_themselves() -> None:
    decided = [image(n, split="test") for n in range(100)]
    splits = assign_splits([*decided, *(image(n) for n in range(100, 200))])
    assert Counter(splits[100:]) == {"train": 70, "val": 15, "test": 15}
    assert set(splits[:100]) == {"test"}


def test_the_draw_follows_pixels_and_seed_and_not_names() -> None:
    images = [image(n) for n in range(100)]
    renamed = [replace(i, image_id=f"x{i.image_id}", blob=MemoryBlob("x.jpg", None)) for i in images]
    assert assign_splits(renamed) == assign_splits(images)
    assert assign_splits(images, seed=1) != assign_splits(images, seed=2)


def test_a_split_of_ratio_zero_stays_empty() -> None:
    assert "test" not in assign_splits([image(n) for n in range(11)], (0.7, 0.3, 0.0))
    assert set(assign_splits([image(n) for n in range(11)], (1.0, 0.0, 0.0))) == {"train"}


@pytest.mark.parametrize(
    "ratios",
    [(0.7, 0.2, 0.2), (0.7, 0.15, 0.1), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5), (0.5, 0.5), (0, 0, 0)],
)
def test_impossible_ratios_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="split ratios must be three numbers"):
        assign_splits([image(0)], ratios)


@given(PARTLY_DECIDED)
def test_equal_images_have_the_given_split_that_the_collection_gets(images: list[ValidImage]) -> None:
    one = with_one_split(images)
    assert assign_splits(one) == assign_splits(images)
    given_to = {image.content_hash for image in images if image.split is not None}
    for image, split in zip(one, assign_splits(images), strict=True):
        assert image.split == (split if image.content_hash in given_to else None)
