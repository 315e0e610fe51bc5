"""Indexes over added rows, so that a search need not compare each of them.

The newest added rows are compared one by one, which takes a tenth of a millisecond for a thousand rows of 512
dimensions. Before them stand *frozen* parts: spans of added rows with an index of their own, chosen by measuring as in
a build. A new part takes in the parts before it while they are at most twice as large, so there are few parts, and a
row is indexed anew only a few times (the tiers of a log-structured merge tree: O'Neil et al., 1996, Acta Informatica
33).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import IndexSpec, VectorIndex
from clip_retrieval.indexes.choose import choose_index
from clip_retrieval.indexes.faiss_index import FaissIndex, search_on_one_thread
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.live.added import AddedRows
from clip_retrieval.records import MODALITIES, Modality

FREEZE_ROWS = 1024
"""From more new rows than this on, they get an index."""
MERGED_FACTOR = 2
QUERIES = 256
"""Vectors of the other modality with which an index is chosen; one half confirms what the other half chose."""
METER = Meter(timed_queries=50, rounds=1, warm_up=5)

Parts = tuple[VectorIndex, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """Indexes over the first added rows, in the order of the rows; they hold for every state of the same rows."""

    added: AddedRows
    parts: Mapping[Modality, Parts]

    @classmethod
    def none(cls, added: AddedRows) -> "Frozen":
        return cls(added, dict.fromkeys(MODALITIES, ()))

    def rows(self, target: Modality) -> int:
        """How many of the added rows have an index."""
        return sum(part.spec.rows for part in self.parts[target])

    def is_behind(self, counts: Mapping[Modality, int]) -> bool:
        """Whether more than ``FREEZE_ROWS`` of ``counts`` added rows have no index."""
        return any(counts[target] - self.rows(target) > FREEZE_ROWS for target in MODALITIES)

    def with_tail(self, target: Modality, count: int) -> Parts:
        """Indexes over the first ``count`` added rows: the frozen ones, and an exact one over the rows behind them."""
        start, dim = self.rows(target), self.added.vectors_of(target, 0, 0).shape[1]
        if start == count:
            return self.parts[target]
        tail = FaissIndex.build(IndexSpec(rows=count - start, dim=dim), self.added.vectors_of(target, start, count))
        return (*self.parts[target], tail)

    def caught_up(
        self, counts: Mapping[Modality, int], queries: Mapping[Modality, Vectors], *, more_than: int = FREEZE_ROWS
    ) -> "Frozen":
        """With indexes over the first ``counts`` added rows, where ``more_than`` so many have none.

        ``queries`` are vectors (n, dim) that ask for rows of each kind, n at least 1. Takes a few seconds for 10,000
        rows of 512 dimensions, on one core. The calling thread searches on one core from then on.
        """
        search_on_one_thread()
        parts = {
            target: self.parts[target]
            if counts[target] - self.rows(target) <= more_than
            else self._caught_up(target, counts[target], queries)
            for target in MODALITIES
        }
        return Frozen(self.added, parts)

    def _caught_up(self, target: Modality, count: int, queries: Mapping[Modality, Vectors]) -> Parts:
        parts, start = list(self.parts[target]), self.rows(target)
        while parts and parts[-1].spec.rows <= MERGED_FACTOR * (count - start):
            start -= parts.pop().spec.rows
        vectors = self.added.vectors_of(target, start, count)
        kind: Modality = "captions" if target == "images" else "images"
        chosen = choose_index(
            vectors, queries[target], query_kind=kind, meter=METER, max_queries=QUERIES // 2, always_flat_rows=0
        )
        return (*parts, chosen.index)


def spread(rows: int, count: int = QUERIES) -> NDArray[np.int64]:
    """At most ``count`` row numbers, spread over ``rows`` rows."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))
