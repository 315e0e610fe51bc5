"""Vectors that are in Milvus alone: they are fetched where they are needed, and scored here as those of a file are.

So scores are those of the vectors themselves, and equal rows stand in row order. What compares every row where there is
a file asks Milvus for many rows instead: a graph may then miss one.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.indexes.base import IndexSpec, SearchHits
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.milvus_place import MOST_FOUND

FETCHED_AT_ONCE = 2000
"""Rows of one answer: 4 MB at 512 dimensions."""
MOST_FETCHED = 10_000
"""Most vectors that one search fetches to compare each of them."""
BREADTHS = (256, 1024, 4096, MOST_FOUND)
"""How many rows are asked for, at most as many as Milvus gives. A few sizes, so that all pages of a size are parts of
one list."""
RESERVE = 1.25
"""How many more rows are asked for than are needed if the allowed rows are spread evenly."""


class Source(Protocol):
    """What has the vectors; ``MilvusEngine`` in production."""

    def search(
        self, name: str, queries: Vectors, limit: int, parameters: Mapping[str, int], expression: str = ""
    ) -> NDArray[np.int64]: ...

    def fetch(self, name: str, rows: NDArray[np.int64], dim: int) -> Vectors: ...


class FetchedVectors:
    """The vectors of one collection of Milvus. Every method raises IndexAway."""

    def __init__(
        self,
        spec: IndexSpec,
        source: Source,
        *,
        expression: str = "",
        among: int | None = None,
        most: int = MOST_FETCHED,
    ) -> None:
        """``expression`` and ``among`` are as in ``MilvusIndex``. Up to ``most`` rows are compared one by one."""
        self._spec, self._source, self._name = spec, source, spec.name or ""
        self._expression, self._most = expression, most
        self._among = spec.rows if among is None or not expression else among

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        """The unit vectors of these rows: float32 (len(rows), dim)."""
        distinct, places = np.unique(rows, return_inverse=True)
        vectors = np.empty((len(distinct), self._spec.dim), np.float32)
        for start in range(0, len(distinct), FETCHED_AT_ONCE):
            block = distinct[start : start + FETCHED_AT_ONCE]
            vectors[start : start + len(block)] = self._source.fetch(self._name, block, self._spec.dim)
        return vectors[places]

    def best_of(self, queries: Vectors, candidates: NDArray[np.int64], k: int) -> SearchHits:
        """The best ``k`` of ``candidates``, rows of shape (queries, n) or -1, by the cosines of the vectors."""
        distinct = np.unique(candidates[candidates >= 0])
        if not len(distinct):
            none = np.full((len(queries), k), -1)
            return SearchHits(none.astype(np.float32), none)
        numbers = np.where(candidates < 0, -1, np.searchsorted(distinct, candidates))
        hits = self._among_fetched(distinct).best_of(queries, numbers, k)
        return SearchHits(hits.scores, np.where(hits.rows < 0, -1, distinct[hits.rows]))

    def exact_search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """The best ``k`` allowed rows; where there are more than ``most``, the best that Milvus finds among many.

        Raises InvalidQuery if it does not find so many.
        """
        rows = np.arange(self._spec.rows) if allowed is None else np.flatnonzero(allowed)
        k = min(k, len(rows))
        if k == 0 or not len(queries) or len(rows) <= self._most:
            hits = self._among_fetched(rows if len(queries) and k else rows[:0]).exact_search(queries, k)
            return SearchHits(hits.scores, rows[hits.rows])
        wanted = math.ceil(k * max(1.0, self._among / len(rows)) * (1 if allowed is None else RESERVE))
        for breadth in BREADTHS:
            if breadth >= min(wanted, MOST_FOUND):
                found = self._found(queries, breadth, allowed)
                if ((found >= 0).sum(axis=1) >= k).all():
                    return self.best_of(queries, found, k)
        raise InvalidQuery(
            f"the first {k} rows are not among the {MOST_FOUND} that Milvus gives for this filter, and this artifact "
            "has no vectors of its own to search further: ask for fewer, or for less with the filter"
        )

    def _found(self, queries: Vectors, breadth: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        parameters = dict(self._spec.search_parameters)
        if "ef" in parameters:
            parameters["ef"] = max(parameters["ef"], breadth)
        expression = "" if allowed is None else self._expression
        found = self._source.search(self._name, queries, min(breadth, self._spec.rows), parameters, expression)
        found = np.where(found < self._spec.rows, found, -1)
        return found if allowed is None else np.where((found >= 0) & allowed[found], found, -1)

    def _among_fetched(self, rows: NDArray[np.int64]) -> FaissIndex:
        """An exact index over the vectors of these rows."""
        spec = IndexSpec(rows=len(rows), dim=self._spec.dim)
        return FaissIndex.build(spec, self.vectors_of(rows))
