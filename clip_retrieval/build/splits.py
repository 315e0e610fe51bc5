"""Which images train, which tune and which test: deterministic, by image, without leaks.

The draw depends on the pixels (``content_hash``) and the seed alone. Neither the order of the source nor
file names change it, and exact duplicates, which would leak from training into a test, stay on one side.
"""

import hashlib
import math
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

from clip_retrieval.records import SPLITS, Split, ValidImage

Ratios = tuple[float, float, float]


def assign_splits(images: Sequence[ValidImage], ratios: Ratios = (0.70, 0.15, 0.15), seed: int = 0) -> list[Split]:
    """The split of each of ``images``, in their order, drawn at ``ratios`` (train, val, test).

    Equal images are one group. A group in which any image has a given split takes it; if given splits
    differ, the most held-out one (test before val before train), since a test image must not be trained
    on. The N images of all other groups are divided among themselves: int(train * N), int(val * N) and
    the rest. No split exceeds its size by as many images as the largest group has, so without duplicates
    the sizes are exact.

    Raises ValueError unless the ratios are three numbers from 0 to 1 that add up to 1.
    """
    groups: dict[str, list[ValidImage]] = {}
    for image in images:
        groups.setdefault(image.content_hash, []).append(image)
    splits: dict[str, Split] = {}
    undecided: dict[str, int] = {}
    for key, group in groups.items():
        given = [image.split for image in group if image.split is not None]
        if given:
            splits[key] = max(given, key=SPLITS.index)
        else:
            undecided[key] = len(group)
    splits |= _draw(undecided, _sizes(sum(undecided.values()), ratios), seed)
    return [splits[image.content_hash] for image in images]


def _sizes(total: int, ratios: Ratios) -> dict[Split, int]:
    if (
        len(ratios) != len(SPLITS)
        or not all(0 <= ratio <= 1 for ratio in ratios)
        or not math.isclose(sum(ratios), 1, abs_tol=1e-6)
    ):
        raise ValueError(f"split ratios must be three numbers from 0 to 1 that add up to 1, not {ratios}")
    sizes = [int(ratio * total) for ratio in ratios]
    # What rounding leaves over goes to the last split that may have any.
    last = max(i for i, ratio in enumerate(ratios) if ratio > 0)
    sizes[last] = total - sum(size for i, size in enumerate(sizes) if i != last)
    return dict(zip(SPLITS, sizes, strict=True))


def _draw(groups: dict[str, int], sizes: dict[Split, int], seed: int) -> dict[str, Split]:
    """Draw a split for each group, each with a chance in proportion to its free places.

    The largest groups draw first, so that single images fill the sizes exactly. A group that fits nowhere
    goes where most places are free.
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
