"""Several indexes that FAISS searches in one call, as one index over all their rows.

After an image was encoded nothing of a search is in the caches of the processor. Then a second call costs more in
Python, in numpy and at the beginning of FAISS's own code than the second index itself (``docs/performance-log.md``).
"""

from collections.abc import Sequence
from typing import Any

import faiss

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import SearchHits, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex


class JoinedIndexes:
    """The rows of each index stand behind those of the one before it. Immutable; safe from several threads."""

    def __init__(self, parts: Sequence[FaissIndex], depth: int) -> None:
        """``parts`` are of one dimension. ``depth`` is how many rows a search asks for, at least.

        A part whose own depth is greater finds as many more candidates before its vectors decide.
        """
        # Not threaded: each search has one thread. Successive ids: the second part's begin behind the first part's.
        self._shards: Any = faiss.IndexShards(parts[0].spec.dim, False, True)
        for part in parts:
            self._shards.add_shard(part.shard(depth))

    @classmethod
    def of(cls, parts: Sequence[VectorIndex], depth: int) -> "JoinedIndexes | None":
        """None unless FAISS searches all of them in this process."""
        known = [part for part in parts if isinstance(part, FaissIndex)]
        return cls(known, depth) if len(known) == len(parts) else None

    def search(self, queries: Vectors, count: int) -> SearchHits:
        """The ``count`` best rows of all parts for each unit query of shape (n, dim), best first.

        Equal scores stand in any order; row -1 stands last for none, with a score below every cosine.
        """
        return SearchHits(*self._shards.search(queries, count))
