"""Measuring an index: its recall, judged by exact search, and the times of single searches.

Recall@k is the mean share of the exact k nearest rows that are among the first k results. It is measured at every k of
``RECALL_KS``, the shortest, the usual and the longest page, with the queries that the index will meet. A time is the
wall time of one search for one query and ``TIMED_K`` rows, in the thread that asks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import Measurement, SearchHits, VectorIndex
from clip_retrieval.records import Modality

RECALL_KS = (1, 10, 50)
TRUTH_DEPTH = max(RECALL_KS)
"""How many rows exact search has to find for each query."""
LEAST_RECALL = 0.99
"""The least recall of a chosen index, at every k of ``RECALL_KS``, unless a person says otherwise."""
TIMED_K = 10
MAX_QUERIES = 1000
"""Most queries that a recall is measured with."""
ERROR_QUERIES = 200
ERROR_DIGITS = 6
MS_DIGITS = 4
"""Times are kept to a tenth of a microsecond: the rest is noise, and a manifest is read by people too."""


@dataclass(frozen=True)
class SearchTimes:
    """Milliseconds of single searches, of shape (rounds, queries).

    Percentiles are those of the best round: other work on the machine only ever adds time.
    """

    ms: NDArray[np.float64]

    @property
    def p50_ms(self) -> float:
        return float(np.percentile(self.ms, 50, axis=1).min())

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self.ms, 99, axis=1).min())


@dataclass(frozen=True)
class Meter:
    """How indexes are measured."""

    timed_queries: int = 200
    """Most queries that are timed."""
    rounds: int = 3
    warm_up: int = 20
    """How many searches come before those that count."""

    def clock_s(self) -> float:
        """What times are taken with, in seconds."""
        return time.perf_counter()

    def times(
        self, index: VectorIndex, queries: Vectors, *, advance: Callable[[int], None] = lambda _: None
    ) -> SearchTimes:
        """Time single searches. ``queries`` are of shape (n, dim), n at least 1; ``advance`` gets searches done.

        FAISS and numpy compute in the calling thread meanwhile, as they do for a service. With numpy's threads a
        search of 2,500 rows one by one took 25 times as long.
        """
        timed = queries[: self.timed_queries]
        ms = np.empty((self.rounds, len(timed)))
        with threadpool_limits(1):
            for query in queries[: self.warm_up]:
                index.search(query[None], TIMED_K)
            for line in ms:
                for number, query in enumerate(timed):
                    start = self.clock_s()
                    index.search(query[None], TIMED_K)
                    line[number] = (self.clock_s() - start) * 1e3
                    advance(1)
        return SearchTimes(ms)

    def measure(
        self,
        index: VectorIndex,
        queries: Vectors,
        truth: NDArray[np.int64],
        query_kind: Modality,
        *,
        times: SearchTimes | None = None,
    ) -> Measurement:
        """Recalls and times of ``index`` with ``queries`` of shape (n, dim), n at least 1.

        ``truth``, of shape (n, ``TRUTH_DEPTH``) or narrower where there are fewer rows, holds what exact search finds.
        ``times`` are taken now if they are not given.
        """
        # The results for any k are a prefix of those for the greatest, since no index searches less deeply than that.
        hits = index.search(queries, TRUTH_DEPTH)
        found = hits.rows
        times = times or self.times(index, queries)
        return Measurement(
            recalls={k: recall_at_k(found[:, :k], truth[:, :k]) for k in RECALL_KS},
            queries=len(queries),
            query_kind=query_kind,
            p50_ms=round(times.p50_ms, MS_DIGITS),
            p99_ms=round(times.p99_ms, MS_DIGITS),
            score_error=score_error(index, queries, hits),
        )


def score_error(index: VectorIndex, queries: Vectors, found: SearchHits) -> float | None:
    """The 99th percentile of the distances between scores and cosines, of some queries; None where they are equal."""
    if index.spec.scores == "vectors":
        return None
    some = zip(queries[:ERROR_QUERIES], found.scores, found.rows, strict=False)
    errors = [np.abs(scores - index.vectors_of(rows) @ query)[rows >= 0] for query, scores, rows in some]
    return round(float(np.percentile(np.concatenate(errors), 99)), ERROR_DIGITS)


DEFAULT_METER = Meter()


def recall_at_k(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of each truth row that is in the found row; both of shape (n, k). 1 where there is no row to find."""
    hits = (found[:, :, None] == truth[:, None, :]).any(axis=1)
    return float(hits.mean()) if hits.size else 1.0
