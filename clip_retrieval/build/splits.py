"""The split of each image: train, val or test. Deterministic, by image, without leaks.

The draw depends only on the pixels (``content_hash``) and the seed. The order of the source and the names of files do
not change it. Exact duplicates stay in one split, since they would leak from training into a test.
"""

import hashlib
import math
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from clip_retrieval.records import SPLITS, Split, ValidImage

Ratios = tuple[float, float, float]


def assign_splits(images: Sequence[ValidImage], ratios: Ratios = (0.70, 0.15, 0.15), seed: int = 0) -> list[Split]:
    """The split of each of ``images``, in their order, drawn at ``ratios`` (train, val, test).

    Equal images form one group. A group in which an image has a given split takes that split. If the given splits of a
    group differ, it takes the one that is held out most (test, then val, then train), since a test image must not be
    trained on. The N images of all other groups are divided: int(train * N), int(val * N) and the rest. A split exceeds
    its size by less than the size of the largest group, so without duplicates the sizes are exact.

    Raises ValueError as ``check_ratios`` does.
    """
    given = _given(images)
    undecided = Counter(image.content_hash for image in images if image.content_hash not in given)
    splits = given | _draw(undecided, _sizes(undecided.total(), ratios), seed)
    return [splits[image.content_hash] for image in images]


def with_one_split(images: Sequence[ValidImage]) -> list[ValidImage]:
    """The images, where equal ones have the same given split, as ``assign_splits`` decides it."""
    given = _given(images)
    return [replace(image, split=given.get(image.content_hash)) for image in images]


def _given(images: Sequence[ValidImage]) -> dict[str, Split]:
    """The given split of each content hash that has one."""
    splits: dict[str, Split] = {}
    for image in images:
        if image.split is not None:
            splits[image.content_hash] = max(image.split, splits.get(image.content_hash, SPLITS[0]), key=SPLITS.index)
    return splits


def split_of_one(content_hash: str, ratios: Ratios, seed: int = 0) -> Split:
    """The split of an image that joins a collection later: each with the chance of its ratio, by the pixels alone.

    Raises ValueError as ``check_ratios`` does.
    """
    check_ratios(ratios)
    digest = hashlib.sha256(f"{seed}:{content_hash}".encode()).digest()
    place = int.from_bytes(digest[-8:]) / 2**64 * sum(ratios)
    return next(split for split, end in zip(SPLITS, accumulate(ratios), strict=True) if place < end)


def check_ratios(ratios: Ratios) -> None:
    """Raise ValueError unless the ratios are three numbers from 0 to 1 that add up to 1."""
    if (
        len(ratios) != len(SPLITS)
        or not all(0 <= ratio <= 1 for ratio in ratios)
        or not math.isclose(sum(ratios), 1, abs_tol=1e-6)
    ):
        raise ValueError(f"split ratios must be three numbers from 0 to 1 that add up to 1, not {ratios}")


def _sizes(total: int, ratios: Ratios) -> dict[Split, int]:
    check_ratios(ratios)
    sizes = [int(ratio * total) for ratio in ratios]
    # The remainder of the rounding goes to the last split with a ratio above 0.
    last = max(i for i, ratio in enumerate(ratios) if ratio > 0)
    sizes[last] = total - sum(size for i, size in enumerate(sizes) if i != last)
    return dict(zip(SPLITS, sizes, strict=True))


def _draw(groups: Mapping[str, int], sizes: dict[Split, int], seed: int) -> dict[str, Split]:
    """Draw a split for each group; the chance of a split is proportional to its free places.

    The largest groups draw first, so that single images fill the sizes exactly. A group that fits into no split goes
    into the split with the most free places.
    """
    digests = {key: hashlib.sha256(f"{seed}:{key}".encode()).digest() for key in groups}
    free = dict(sizes)
    splits: dict[str, Split] = {}
    for key in sorted(groups, key=lambda key: (-groups[key], digests[key])):
        size = groups[key]
        fitting = {split: places for split, places in free.items() if places >= size}
        if fitting:
            place = int.from_bytes(digests[key][-8:]) % sum(fitting.values())
            splits[key] = list(fitting)[bisect(list(accumulate(fitting.values())), place)]
        else:
            splits[key] = max(free, key=lambda split: free[split])
        free[splits[key]] -= size
    return splits
