"""Choosing an index by measuring, judged by exact search.

Recall@k is the share of the exact k nearest rows that the index finds, measured with the queries that the index will
meet: caption vectors against image rows, and the reverse. Vectors drawn from the index itself would be easier than
those and flatter it. Times are of single searches for ten rows. Of the queries one half is for the sweep; the other,
which the sweep has not seen, confirms what was chosen. What is tried is in ``families.py``; ``trials.py`` is the full
sweep to a budget.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.faiss_index import Index, IndexSpec, exact_search
from clip_retrieval.indexes.families import Family, quick_families

ALWAYS_FLAT_ROWS = 4096
"""Up to here a flat search takes under 0.2 ms at 512 dimensions and no graph is faster."""

MAX_QUERIES = 1000
"""Most queries of each half."""
TIMED_QUERIES = 200
ROUNDS = 3
K = 10
ENOUGH = 0.9995
"""A recall from which a broader search of the same index is not tried."""

QueryKind = Literal["captions", "images"]


@dataclass(frozen=True)
class Queries:
    """Queries of one kind with the rows that exact search finds for them, in two halves."""

    kind: QueryKind
    sweep: Vectors
    sweep_truth: NDArray[np.int64]
    held_out: Vectors
    held_out_truth: NDArray[np.int64]

    @classmethod
    def draw(cls, vectors: Vectors, queries: Vectors, kind: QueryKind, seed: int = 0) -> Self:
        """Two halves of at most ``MAX_QUERIES`` each, drawn with ``seed``, and their true rows in ``vectors``."""
        picked = np.random.default_rng(seed).permutation(len(queries))[: 2 * MAX_QUERIES]
        sample: Vectors = np.ascontiguousarray(queries[np.sort(picked)])
        _, truth = exact_search(vectors, sample, K)
        half = (len(sample) + 1) // 2
        mixed = np.random.default_rng((seed, 1)).permutation(len(sample))
        first, second = mixed[:half], mixed[half:] if len(sample) > 1 else mixed
        return cls(kind, sample[first], truth[first], sample[second], truth[second])


def choose_index(
    vectors: Vectors,
    queries: Vectors,
    *,
    query_kind: QueryKind,
    recall: float = 0.99,
    seed: int = 0,
) -> Index:
    """Build the fastest of a short list over ``vectors`` whose recall@10 on ``queries`` is at least ``recall``.

    Both are unit float32, of shapes (rows, dim) and (n, dim). Up to 4,096 rows the index is flat. What was measured, on
    queries that the sweep has not seen, is in the ``spec`` of the index.
    """
    rows, dim = vectors.shape
    flat = Index.build(IndexSpec(rows=rows, dim=dim, memory_mb=vectors.nbytes / 1e6), vectors)
    if not rows or not len(queries):
        return flat
    asked = Queries.draw(vectors, queries, query_kind, seed)
    flat.spec = measured(flat, asked.held_out, asked.held_out_truth, query_kind)
    if rows <= ALWAYS_FLAT_ROWS:
        return flat
    for family in quick_families(rows, dim):
        index = build_family(family, vectors)
        tried = [s for s in sweep(index, family, asked, (1 + recall) / 2) if (s.recall_at_10 or 0) >= recall]
        for spec in fastest_first(tried):
            found = confirmed(index.with_search(spec.parameters, spec.rescored), asked)
            if (found.spec.recall_at_10 or 0) >= recall and (found.spec.p50_ms or 0) < (flat.spec.p50_ms or 0):
                return found
    return flat


def build_family(family: Family, vectors: Vectors, *, advance: Callable[[int], None] = lambda _: None) -> Index:
    """Build the index of ``family``; its spec says how long it took."""
    rows, dim = vectors.shape
    start = time.perf_counter()
    spec = IndexSpec(factory=family.factory, parameters=family.build, rows=rows, dim=dim)
    index = Index.build(spec, vectors, advance=advance)
    index.spec = index.spec.model_copy(update={"build_s": time.perf_counter() - start})
    return index


def sweep(index: Index, family: Family, queries: Queries, until: float = ENOUGH) -> Iterator[IndexSpec]:
    """Measure the settings of a built family on the sweep's queries, from the quickest to the most thorough.

    For each number of rescored rows, settings beyond the first whose recall reaches ``until`` are left out.
    """
    for rescored in family.rescored:
        for setting in family.settings:
            tried = index if index.spec.exact else index.with_search(setting, rescored)
            spec = measured(tried, queries.sweep, queries.sweep_truth, queries.kind)
            yield spec
            if (spec.recall_at_10 or 0) >= until:
                break


def fastest_first(specs: Iterable[IndexSpec]) -> list[IndexSpec]:
    return sorted(specs, key=lambda spec: spec.p50_ms or 0)


def confirmed(index: Index, queries: Queries) -> Index:
    """The index with what was measured on the queries that the sweep has not seen."""
    index.spec = measured(index, queries.held_out, queries.held_out_truth, queries.kind)
    return index


def measured(index: Index, queries: Vectors, truth: NDArray[np.int64], kind: QueryKind) -> IndexSpec:
    """The spec of ``index`` with its recall@10 and the percentiles of single searches in this thread."""
    recall = 1.0 if index.spec.exact else recall_at_k(index.search(queries, K)[1], truth)
    p50, p99 = single_ms(index, queries)
    update = {"recall_at_10": recall, "queries": len(queries), "query_kind": kind, "p50_ms": p50, "p99_ms": p99}
    return index.spec.model_copy(update=update)


def recall_at_k(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of each truth row that is in the found row. Both of shape (n, k)."""
    hits = (found[:, :, None] == truth[:, None, :]).any(axis=1)
    return float(hits.mean()) if hits.size else 1.0


def single_ms(index: Index, queries: Vectors) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds of single searches for ten rows, each the least of a few rounds.

    Where others use the machine too, the least is what the index itself needs.
    """
    rounds = []
    for _ in range(ROUNDS):
        times = []
        for query in queries[:TIMED_QUERIES]:
            start = time.perf_counter()
            index.search(query[None], K)
            times.append(time.perf_counter() - start)
        rounds.append(np.percentile(times, [50, 99]) * 1e3)
    p50, p99 = np.min(rounds, axis=0)
    return float(p50), float(p99)
