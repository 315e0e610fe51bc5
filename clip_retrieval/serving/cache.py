"""What a server keeps to answer faster: rendered results, and the vectors of what was encoded.

Both are used from the event loop alone. What is kept is bytes and arrays, never a record, a retriever or an artifact,
so that nothing keeps an artifact alive that is served no more.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from cachetools import LRUCache, TTLCache

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.serving.shared_state import PLACE, SharedState, Slot

_HITS, _MISSES, _SIZE = PLACE["cache_hits"], PLACE["cache_misses"], PLACE["cache_size"]


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """The results of one page as a JSON array, and what the answer says about them."""

    results: bytes
    total: int
    next_offset: int | None
    truncated: bool
    below: int = 0
    """As in ``SearchOutcome``."""


class AnswerCache:
    """The rendered results of the latest queries, by the version of the artifact and the query's key.

    A size of 0 keeps nothing.
    """

    def __init__(self, size: int, ttl_s: float, slot: Slot | None = None) -> None:
        """``slot`` is where the other workers see how many are kept, and how many look-ups there were."""
        self._kept: TTLCache[tuple[str, str], RenderedPage] = TTLCache(size, ttl_s)
        self._cells = (slot or SharedState.alone().slots[0]).cells

    @property
    def hits(self) -> int:
        return self._cells[_HITS]

    @property
    def misses(self) -> int:
        return self._cells[_MISSES]

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, version: str, key: str) -> RenderedPage | None:
        page = self._kept.get((version, key))
        self._cells[_MISSES if page is None else _HITS] += 1
        return page

    def keep(self, version: str, key: str, page: RenderedPage) -> None:
        if self._kept.maxsize:
            self._kept[version, key] = page
            self._cells[_SIZE] = len(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._cells[_SIZE] = 0


class QueryVectorCache:
    """The unit vectors of the latest texts and images that were encoded, by what the encoder read."""

    def __init__(self, size: int) -> None:
        self._kept: LRUCache[Hashable, Vectors] = LRUCache(size)

    def get(self, key: Hashable) -> Vectors | None:
        return self._kept.get(key)

    def keep(self, key: Hashable, vector: Vectors) -> Vectors:
        """The vector to use from now on: that of the request which kept one first.

        An encoder's rounding depends on the batch. Pages of one search come from one vector, also when they are asked
        for at the same time.
        """
        if not self._kept.maxsize:
            return vector
        return self._kept.setdefault(key, vector)

    def clear(self) -> None:
        self._kept.clear()
