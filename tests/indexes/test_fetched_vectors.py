"""Vectors that are in Milvus alone: what is fetched, what is compared here, and what cannot be answered."""

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.fetched_vectors import FETCHED_AT_ONCE, FetchedVectors
from tests.indexes.fake_engine import FakeEngine

ROWS, DIM = 20_000, 4


class FetchingEngine(FakeEngine):
    """Notes how many rows are fetched at once."""

    def __init__(self, vectors: Vectors) -> None:
        super().__init__(vectors)
        self.fetched: list[int] = []

    def fetch(self, name: str, rows: NDArray[np.int64], dim: int) -> Vectors:
        self.fetched.append(len(rows))
        return super().fetch(name, rows, dim)


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return unit_rows(np.random.default_rng(0).standard_normal((ROWS, DIM)))


@pytest.fixture
def engine(vectors: Vectors) -> FetchingEngine:
    return FetchingEngine(vectors)


@pytest.fixture
def fetched(engine: FetchingEngine) -> FetchedVectors:
    return FetchedVectors(spec(), engine)


def spec() -> IndexSpec:
    search = {"ef": 300}
    return IndexSpec(engine="milvus", name="vectors", factory="HNSW", search_parameters=search, rows=ROWS, dim=DIM)


def test_rows_are_fetched_once_each_in_blocks_and_come_in_the_order_asked(
    fetched: FetchedVectors, engine: FetchingEngine, vectors: Vectors
) -> None:
    rows = np.concatenate([np.arange(4100)[::-1], [7, 7]])
    np.testing.assert_array_equal(fetched.vectors_of(rows), vectors[rows])
    assert engine.fetched == [FETCHED_AT_ONCE, FETCHED_AT_ONCE, 100]
    assert fetched.vectors_of(np.empty(0, np.int64)).shape == (0, DIM)


def test_candidates_are_scored_and_ordered_as_by_vectors_that_are_here(
    fetched: FetchedVectors, vectors: Vectors
) -> None:
    here = FaissIndex.build(IndexSpec(rows=ROWS, dim=DIM), vectors)
    candidates = np.array([[5, -1, 900, 3], [-1, -1, 2, -1]])
    for one, other in zip(
        fetched.best_of(vectors[:2], candidates, 3), here.best_of(vectors[:2], candidates, 3), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert (fetched.best_of(vectors[:1], np.full((1, 4), -1), 2).rows == -1).all()


def test_few_allowed_rows_are_compared_one_by_one(
    fetched: FetchedVectors, engine: FetchingEngine, vectors: Vectors
) -> None:
    here = FaissIndex.build(IndexSpec(rows=ROWS, dim=DIM), vectors)
    allowed = np.arange(ROWS) % 10 == 3
    found = fetched.exact_search(vectors[:3], 50, allowed=allowed)
    np.testing.assert_array_equal(found.rows, here.exact_search(vectors[:3], 50, allowed=allowed).rows)
    assert engine.asked == []
    assert fetched.exact_search(vectors[:3], 5, allowed=np.zeros(ROWS, np.bool_)).rows.shape == (3, 0)


def test_pages_far_down_come_from_one_list_of_a_few_sizes(
    fetched: FetchedVectors, engine: FetchingEngine, vectors: Vectors
) -> None:
    here = FaissIndex.build(IndexSpec(rows=ROWS, dim=DIM), vectors)
    allowed = np.ones(ROWS, np.bool_)
    allowed[:100] = False
    for k in (50, 150, 900):
        found = fetched.exact_search(vectors[:1], k, allowed=allowed)
        np.testing.assert_array_equal(found.rows, here.exact_search(vectors[:1], k, allowed=allowed).rows)
    assert [(asked.limit, asked.parameters["ef"]) for asked in engine.asked] == [(256, 300), (256, 300), (4096, 4096)]


def test_what_milvus_gives_too_few_rows_of_is_refused_with_what_to_do(engine: FetchingEngine, vectors: Vectors) -> None:
    near = np.argsort(-(vectors @ vectors[0]))
    allowed = np.zeros(ROWS, np.bool_)
    allowed[near[-11_000:]] = True  # the rows that are farthest from the query
    with pytest.raises(InvalidQuery, match="the first 9000 rows are not among the 16384 that Milvus gives"):
        FetchedVectors(spec(), engine).exact_search(vectors[:1], 9000, allowed=allowed)
    engine.passes = allowed
    by_filter = FetchedVectors(spec(), engine, expression="far", among=11_000)
    assert allowed[by_filter.exact_search(vectors[:1], 9000, allowed=allowed).rows].all()
