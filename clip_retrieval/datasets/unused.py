"""Files of a place that a reader did not use, counted by kind, so that nothing is left out in silence."""

from collections import Counter
from collections.abc import Collection
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.place import Place
from clip_retrieval.datasets.shards import unused_files


def count_unused(place: Place, used: Collection[str], images: str) -> Counter[str]:
    """How many files of ``place`` are not among ``used``, by kind; ``images`` is what unused images are called."""
    left = [name for name in place.files if name not in used]
    unnamed = [name for name in left if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    counts = unused_files(left, frozenset(unnamed))
    if unnamed:
        counts[images] = len(unnamed)
    return counts
