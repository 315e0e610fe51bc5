"""Choosing an index by measuring: exact search where it is the faster one, else HNSW at the recall that is asked for.

Recall@k is the share of the exact k nearest rows that the index finds, measured with the queries that the index will
meet: caption vectors against picture rows, and the reverse. Vectors drawn from the index itself would be easier than
those and flatter it.
"""

import time
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.index import Index, IndexSpec, exact_search

ALWAYS_FLAT_ROWS = 4096
"""Up to here a flat search takes under 0.2 ms at 512 dimensions and no graph is faster."""

GRAPH = "HNSW16,SQ8"
"""A graph (Malkov and Yashunin, 2018, arXiv:1603.09320) over vectors of 8 bits a component."""
EF_CONSTRUCTION = 200
RESCORED = 2
EF_SEARCH = (32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)
MAX_QUERIES = 1000
TIMED_QUERIES = 200
K = 10


def choose_index(
    vectors: Vectors,
    queries: Vectors,
    *,
    query_kind: Literal["captions", "pictures"],
    recall: float = 0.99,
    seed: int = 0,
) -> Index:
    """Build the faster index over ``vectors`` whose recall@10 on ``queries`` is at least ``recall``.

    Both are unit float32, of shapes (rows, dim) and (n, dim); up to a thousand queries are drawn with ``seed``. What
    was measured is in the ``spec`` of the index.
    """
    rows, dim = vectors.shape
    flat = Index.build(IndexSpec(rows=rows, dim=dim), vectors)
    if not rows or not len(queries):
        return flat
    picked = np.random.default_rng(seed).permutation(len(queries))[:MAX_QUERIES]
    sample: Vectors = np.ascontiguousarray(queries[np.sort(picked)])
    seen = {"queries": len(sample), "query_kind": query_kind}
    flat_ms = median_ms(flat, sample)
    flat = _measured(flat, recall_at_10=1.0, p50_ms=flat_ms, **seen)
    if rows <= ALWAYS_FLAT_ROWS:
        return flat
    _, truth = exact_search(vectors, sample, K)
    spec = IndexSpec(factory=GRAPH, parameters={"efConstruction": EF_CONSTRUCTION}, rows=rows, dim=dim)
    graph = Index.build(spec, vectors)
    for ef_search in EF_SEARCH:
        graph = graph.with_search({"efSearch": ef_search}, RESCORED)
        found = recall_at_k(graph.search(sample, K)[1], truth)
        if found >= recall:
            graph_ms = median_ms(graph, sample)
            return _measured(graph, recall_at_10=found, p50_ms=graph_ms, **seen) if graph_ms < flat_ms else flat
    return flat


def recall_at_k(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of each truth row that is in the found row. Both of shape (n, k)."""
    hits = (found[:, :, None] == truth[:, None, :]).any(axis=1)
    return float(hits.mean()) if hits.size else 1.0


def median_ms(index: Index, queries: Vectors) -> float:
    """Median wall time in milliseconds of a search for one query and ten rows, after a warm-up."""
    times = []
    for query in queries[:TIMED_QUERIES]:
        start = time.perf_counter()
        index.search(query[None], K)
        times.append(time.perf_counter() - start)
    return float(np.median(times[len(times) // 10 :])) * 1e3


def _measured(index: Index, **update: object) -> Index:
    index.spec = index.spec.model_copy(update=update)
    return index
