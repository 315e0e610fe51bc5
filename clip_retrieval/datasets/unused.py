"""Files of a folder that a reader did not use, counted by kind, so that nothing is left out in silence."""

from collections import Counter
from collections.abc import Container
from pathlib import Path, PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.place import Place


def count_unused(place: Place, used: Container[Path], images: str) -> Counter[str]:
    """How many files below ``place`` are not among ``used``, by suffix; ``images`` is what unused images are called."""
    counts: Counter[str] = Counter()
    for shown, path in place.files.items():
        if path in used:
            continue
        suffix = PurePosixPath(shown).suffix.lower()
        counts[images if suffix in IMAGE_SUFFIXES else suffix or "files without a suffix"] += 1
    return counts
