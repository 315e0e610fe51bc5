"""What a server keeps to answer faster: rendered results, and the vectors of what was encoded.

Both are used from the event loop alone. What is kept is bytes and arrays, never a record, a retriever or an artifact,
so that nothing keeps an artifact alive that is served no more.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from cachetools import LRUCache, TTLCache

from clip_retrieval.encoders.base import Vectors


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """The results of one page as a JSON array, and what the answer says about them."""

    results: bytes
    total: int
    next_offset: int | None
    truncated: bool


class AnswerCache:
    """The rendered results of the latest queries, by the version of the artifact and the query's key.

    A size of 0 keeps nothing. ``hits`` and ``misses`` count look-ups since the start.
    """

    def __init__(self, size: int, ttl_s: float) -> None:
        self._kept: TTLCache[tuple[str, str], RenderedPage] = TTLCache(size, ttl_s)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, version: str, key: str) -> RenderedPage | None:
        page = self._kept.get((version, key))
        if page is None:
            self.misses += 1
        else:
            self.hits += 1
        return page

    def keep(self, version: str, key: str, page: RenderedPage) -> None:
        if self._kept.maxsize:
            self._kept[version, key] = page

    def clear(self) -> None:
        self._kept.clear()


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
