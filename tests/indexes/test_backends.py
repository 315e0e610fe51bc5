"""Every engine behind the seam of an index answers as brute force does, within the recall that its kind has here."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.base import IndexSpec, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex, FilterLimits
from tests.indexes.milvus_lite import EXACT, GRAPH, LISTS, milvus_index
from tests.indexes.milvus_standalone import standalone

ROWS, DIM = 1200, 16
LIMITS = FilterLimits(exact_rows=20, scan_exact_rows=20)

Make = Callable[[Path, Vectors], VectorIndex]


def faiss(factory: str, **search: int) -> Make:
    def make(_: Path, vectors: Vectors) -> VectorIndex:
        spec = IndexSpec(factory=factory, search_parameters=search, depth=96, rows=len(vectors), dim=DIM)
        return FaissIndex.build(spec, vectors, filter_limits=LIMITS)

    return make


BACKENDS: dict[str, tuple[Make, float]] = {
    "faiss Flat": (faiss("Flat"), 1.0),
    "faiss HNSW": (faiss("HNSW16", efSearch=128), 0.99),
    "faiss IVF": (faiss("IVF16,SQ8", nprobe=12), 0.97),
    "milvus FLAT": (lambda folder, vectors: milvus_index(folder, vectors, EXACT, depth=96), 1.0),
    "milvus HNSW": (lambda folder, vectors: milvus_index(folder, vectors, GRAPH, depth=96), 0.99),
    "milvus HNSW, vectors fetched": (
        lambda folder, vectors: milvus_index(folder, vectors, GRAPH, depth=96, are_here=False),
        0.99,
    ),
}
"""How each is made, and the least recall that it is held to."""


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    made = unit_rows(np.random.default_rng(3).standard_normal((ROWS, DIM)))
    made[700:705] = made[5]  # rows of equal scores
    return made


@pytest.fixture(scope="module")
def queries() -> Vectors:
    return unit_rows(np.random.default_rng(4).standard_normal((10, DIM)))


STANDALONE: dict[str, tuple[tuple[str, Mapping[str, int]], float, bool]] = {
    "milvus standalone FLAT": (EXACT, 1.0, True),
    "milvus standalone HNSW": (GRAPH, 0.99, True),
    "milvus standalone IVF": (LISTS, 0.97, True),
    "milvus standalone HNSW, vectors fetched": (GRAPH, 0.99, False),
}
"""The same of a real Milvus, in slow tests, and whether the vectors are here too."""


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real Milvus."""
    with standalone(tmp_path_factory.mktemp("milvus")) as uri:
        yield uri


@pytest.fixture(
    scope="module", params=[*BACKENDS, *(pytest.param(name, marks=pytest.mark.slow) for name in STANDALONE)]
)
def backend(
    request: pytest.FixtureRequest, vectors: Vectors, tmp_path_factory: pytest.TempPathFactory
) -> tuple[VectorIndex, float]:
    folder = tmp_path_factory.mktemp("index")
    if request.param in STANDALONE:
        index, recall, are_here = STANDALONE[request.param]
        uri, name = request.getfixturevalue("milvus"), f"vectors_{index[0]}_{are_here}"
        return milvus_index(folder, vectors, index, depth=96, uri=uri, name=name, are_here=are_here), recall
    make, recall = BACKENDS[request.param]
    return make(folder, vectors), recall


def brute_force(vectors: Vectors, query: Vectors, k: int, allowed: np.ndarray | None = None) -> list[int]:
    scores = vectors @ query
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    return [int(row) for row in rows[np.argsort(-scores[rows], kind="stable")][:k]]


def test_a_search_finds_the_rows_of_brute_force(
    backend: tuple[VectorIndex, float], vectors: Vectors, queries: Vectors
) -> None:
    index, least = backend
    for k in (1, 10, 50):
        found = index.search(queries, k)
        shares = [
            len({*rows} & {*brute_force(vectors, query, k)}) / k
            for query, rows in zip(queries, found.rows.tolist(), strict=True)
        ]
        assert np.mean(shares) >= least
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True):
            np.testing.assert_allclose(scores, vectors[rows] @ query, atol=1e-6)
            assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.005, 0.05, 0.4, 0.9, 1.0])
def test_a_filtered_search_finds_allowed_rows_alone_and_as_many_as_there_are(
    backend: tuple[VectorIndex, float], vectors: Vectors, queries: Vectors, share: float
) -> None:
    index, least = backend
    allowed = np.random.default_rng(int(share * 1000)).random(ROWS) < share
    for k in (1, 10, 50):
        found = index.search(queries, k, allowed=allowed)
        assert found.rows.shape == (len(queries), min(k, int(allowed.sum())))
        assert allowed[found.rows].all()
        if found.rows.size:
            truth = [brute_force(vectors, query, k, allowed) for query in queries]
            shares = [len({*rows} & {*true}) / len(true) for rows, true in zip(found.rows.tolist(), truth, strict=True)]
            assert np.mean(shares) >= least


def test_every_shorter_list_is_a_prefix_of_the_longer_one(backend: tuple[VectorIndex, float], queries: Vectors) -> None:
    index, _ = backend
    allowed = np.arange(ROWS) % 3 > 0
    for mask in (None, allowed):
        longest = index.search(queries, 64, allowed=mask).rows
        for k in (1, 2, 7, 50, 63):
            np.testing.assert_array_equal(index.search(queries, k, allowed=mask).rows, longest[:, :k])


def test_exact_search_is_brute_force_and_equal_rows_stand_in_row_order(
    backend: tuple[VectorIndex, float], vectors: Vectors, queries: Vectors
) -> None:
    index, _ = backend
    allowed = np.arange(ROWS) % 7 == 0
    for query in queries[:5]:
        assert index.exact_search(query[None], 20).rows[0].tolist() == brute_force(vectors, query, 20)
        assert index.exact_search(query[None], 20, allowed=allowed).rows[0].tolist() == brute_force(
            vectors, query, 20, allowed
        )
    assert index.search(vectors[5][None], 6).rows[0].tolist() == [5, 700, 701, 702, 703, 704]
    assert index.exact_search(vectors[5][None], 6).rows[0].tolist() == [5, 700, 701, 702, 703, 704]


def test_vectors_of_rows_are_those_that_were_given(backend: tuple[VectorIndex, float], vectors: Vectors) -> None:
    rows = np.array([3, 1199, 0], dtype=np.int64)
    np.testing.assert_array_equal(backend[0].vectors_of(rows), vectors[rows])


def test_queries_and_masks_of_another_shape_are_refused(backend: tuple[VectorIndex, float], queries: Vectors) -> None:
    index, _ = backend
    with pytest.raises(ValueError, match="queries have shape"):
        index.search(queries[:, :5], 3)
    with pytest.raises(ValueError, match="allowed has shape"):
        index.search(queries, 3, allowed=np.ones(5, dtype=np.bool_))
