"""One index over the rows of several: those of a base and those that were added, without rows that were removed.

The rows of each part stand behind those of the part before it. FAISS searches all parts in one call where it has them
all; else a search merges what the parts find. Cosines of all parts are exact, so the merged order is that of one index.
Where rows were removed, a few more are asked for than are needed, and the removed ones are dropped: that is far quicker
than a search with a filter. Where too few are left, the filter decides.
"""

import math
from collections.abc import Sequence
from copy import copy
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import IndexSpec, SearchHits, VectorIndex
from clip_retrieval.indexes.faiss_index import best_hits, first_hits, merged_hits
from clip_retrieval.indexes.faiss_joined import JoinedIndexes
from clip_retrieval.search.columns import Mask

LEAST_LIVE_SHARE = 0.5
"""A part with a smaller share of rows that are left is searched with a filter."""
RESERVE = 3.0
"""How many standard deviations more removed rows than their share among those found are allowed for."""


class LiveIndex:
    """A ``VectorIndex`` of ``indexes/base.py``. Immutable."""

    def __init__(self, parts: Sequence[VectorIndex], live: Mask | None) -> None:
        """``parts`` are not empty and of one dimension. ``live``, of shape (all rows,), is false for removed rows.

        A search whose ``allowed`` is this very array is one without a filter.
        """
        self._parts = tuple(parts)
        self._live = live
        ends = list(accumulate(part.spec.rows for part in parts))
        self._slices = [slice(end - part.spec.rows, end) for part, end in zip(parts, ends, strict=True)]
        self._counts = [
            part.spec.rows if live is None else int(np.count_nonzero(live[rows]))
            for part, rows in zip(parts, self._slices, strict=True)
        ]
        self._searched = [number for number, count in enumerate(self._counts) if count]
        self._live_rows = sum(self._counts)
        kinds = [part.spec for part in parts if not part.spec.exact] or [parts[0].spec]
        depth = min(spec.depth for spec in kinds)
        self._spec = kinds[0].model_copy(update={"rows": ends[-1], "depth": depth})
        self._share = min(
            (count / part.spec.rows for part, count in zip(parts, self._counts, strict=True) if part.spec.rows),
            default=1.0,
        )
        """The least share of rows that are left, of all parts that have rows."""
        joins = len(self._searched) > 1 and not self._spec.exact and self._share >= LEAST_LIVE_SHARE
        self._joined = JoinedIndexes.of(parts, depth) if joins else None

    @property
    def spec(self) -> IndexSpec:
        """That of the first part which is not exact, with all rows and the least depth of such parts.

        It is that of an exact index if all parts are exact.
        """
        return self._spec

    @property
    def compared_values(self) -> int:
        return sum(part.compared_values for part in self._parts)

    def with_base(self, base: VectorIndex) -> "LiveIndex":
        """The same rows; ``base`` searches those of the first part, which it has too."""
        other = copy(self)
        other._parts, other._joined = (base, *self._parts[1:]), None
        return other

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """See ``VectorIndex.search``. Removed rows are found if ``allowed`` says so."""
        if allowed is None or allowed is self._live:
            k = min(k, self._live_rows)
            search = self._search_each if self._joined is None else self._search_joined
            return search(queries, k)
        self._check(allowed)
        k = min(k, int(np.count_nonzero(allowed)))
        found = [
            part.search(queries, k, allowed=allowed[rows]) for part, rows in zip(self._parts, self._slices, strict=True)
        ]
        return self._merged(found, range(len(self._parts)), queries, k)

    def exact_search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None) -> SearchHits:
        """See ``VectorIndex.exact_search``. Removed rows are found if ``allowed`` says so."""
        allowed = self._live if allowed is None else allowed
        if allowed is None:
            k = min(k, self._spec.rows)
            found = [part.exact_search(queries, k) for part in self._parts]
        else:
            self._check(allowed)
            k = min(k, int(np.count_nonzero(allowed)))
            found = [
                part.exact_search(queries, k, allowed=allowed[rows])
                for part, rows in zip(self._parts, self._slices, strict=True)
            ]
        return self._merged(found, range(len(self._parts)), queries, k)

    def vectors_of(self, rows: NDArray[np.int64]) -> Vectors:
        vectors = np.empty((len(rows), self._spec.dim), np.float32)
        for part, part_rows in zip(self._parts, self._slices, strict=True):
            here = (rows >= part_rows.start) & (rows < part_rows.stop)
            if here.any():
                vectors[here] = part.vectors_of(rows[here] - part_rows.start)
        return vectors

    def _search_joined(self, queries: Vectors, k: int) -> SearchHits:
        """The best ``k`` live rows, of all parts in one call."""
        assert self._joined is not None, "it was asked for"
        wanted = min(max(k, self._spec.depth), self._live_rows)
        scores, rows = self._joined.search(queries, self._asked(wanted, self._share, self._spec.rows))
        if self._live is None:
            return first_hits(scores, rows, k)
        is_live = self._live[rows] & (rows >= 0)
        if len(queries) == 1 and np.count_nonzero(is_live) >= wanted:  # half the time of what follows
            return first_hits(scores[is_live][None], rows[is_live][None], k)
        hits = best_hits(np.where(is_live, scores, np.float32(-np.inf)), np.where(is_live, rows, -1), k)
        if (short := is_live.sum(axis=1) < wanted).any():
            hits.scores[short], hits.rows[short] = self._search_each(queries[short], k)
        return hits

    def _search_each(self, queries: Vectors, k: int) -> SearchHits:
        """The same, one part after the other."""
        found = [self._search_live(number, queries, k) for number in self._searched]
        return self._merged(found, self._searched, queries, k)

    def _search_live(self, number: int, queries: Vectors, k: int) -> SearchHits:
        """At least the best ``k`` live rows of one part, which has at least one; -1 stands for those between them."""
        part, count = self._parts[number], self._counts[number]
        if self._live is None or count == part.spec.rows:
            return part.search(queries, k)
        live = self._live[self._slices[number]]
        share = count / part.spec.rows
        if share < LEAST_LIVE_SHARE:
            return part.search(queries, k, allowed=live)
        # As in every index, all results for k up to the depth come from one list.
        wanted = min(k if part.spec.exact else max(k, part.spec.depth), count)
        scores, rows = part.search(queries, self._asked(wanted, share, part.spec.rows))
        is_live = live[rows] & (rows >= 0)
        rows = np.where(is_live, rows, -1)
        if (short := is_live.sum(axis=1) < wanted).any():
            filtered = part.search(queries[short], k, allowed=live)
            width = filtered.rows.shape[1]
            rows[short, width:] = -1
            scores[short, :width], rows[short, :width] = filtered
        return SearchHits(scores, rows)

    @staticmethod
    def _asked(wanted: int, share: float, rows: int) -> int:
        """How many of ``rows`` are asked for so that ``wanted`` are left if each is with a chance of ``share``."""
        return min(rows, math.ceil((wanted + RESERVE * math.sqrt(wanted * (1 - share))) / share))

    def _merged(self, found: Sequence[SearchHits], numbers: Sequence[int], queries: Vectors, k: int) -> SearchHits:
        if not found:
            return SearchHits(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        starts = [self._slices[number].start for number in numbers]
        rows = [np.where(hits.rows < 0, -1, hits.rows + start) for hits, start in zip(found, starts, strict=True)]
        return merged_hits(np.concatenate([hits.scores for hits in found], axis=1), np.concatenate(rows, axis=1), k)

    def _check(self, allowed: NDArray[np.bool_]) -> None:
        if allowed.shape != (self._spec.rows,):
            raise ValueError(f"allowed has shape {allowed.shape}, the index has {self._spec.rows} rows")
