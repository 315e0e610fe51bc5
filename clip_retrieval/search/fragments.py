"""Records as JSON that are kept: reading them from the store takes a fifth of a request's time."""

import threading
from collections.abc import Callable, Mapping, Sequence

from cachetools import LRUCache

from clip_retrieval.records import Modality

FRAGMENTS_KEPT = 10_000
"""Fragments of each kind: about 1 KB for an image with five captions."""


class FragmentCache:
    """The latest fragments (see ``results.py``) by row. The record of a row never changes. Safe in any thread."""

    def __init__(self) -> None:
        self._kept: dict[Modality, LRUCache[int, str]] = {
            "images": LRUCache(FRAGMENTS_KEPT),
            "captions": LRUCache(FRAGMENTS_KEPT),
        }
        self._lock = threading.Lock()

    def of(self, target: Modality, rows: Sequence[int], read: Callable[[list[int]], Mapping[int, str]]) -> list[str]:
        """The fragments of these rows, in the order asked; ``read`` makes those of rows that are not kept."""
        kept = self._kept[target]
        with self._lock:
            found = {row: fragment for row in rows if (fragment := kept.get(row)) is not None}
        if missing := [row for row in rows if row not in found]:
            made = read(missing)
            with self._lock:
                kept.update(made)
            found |= made
        return [found[row] for row in rows]

    def forget(self) -> None:
        """Drop all of them."""
        with self._lock:
            for kept in self._kept.values():
                kept.clear()
