"""How an index in Milvus asks its engine, and what it does with the answer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import IndexAway
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.indexes.milvus_place import MOST_FOUND
from tests.indexes.fake_engine import FakeEngine

ROWS, DIM, DEPTH = 2000, 8, 64
HALF = np.arange(ROWS) % 2 == 0


@pytest.fixture
def vectors() -> Vectors:
    return unit_rows(np.random.default_rng(0).standard_normal((ROWS, DIM)))


@pytest.fixture
def engine(vectors: Vectors) -> FakeEngine:
    return FakeEngine(vectors)


@pytest.fixture
def index(vectors: Vectors, engine: FakeEngine) -> MilvusIndex:
    spec = IndexSpec(
        engine="milvus",
        name="vectors",
        factory="HNSW",
        search_parameters={"ef": 80},
        depth=DEPTH,
        rows=ROWS,
        dim=DIM,
    )
    return MilvusIndex(spec, engine, vectors, exact_rows=100)


def test_as_many_rows_are_asked_for_as_the_depth_says_and_no_fewer_than_are_wanted(
    index: MilvusIndex, engine: FakeEngine, vectors: Vectors
) -> None:
    index.search(vectors[:1], 5)
    index.search(vectors[:1], 300)
    assert [(asked.limit, asked.parameters) for asked in engine.asked] == [(64, {"ef": 80}), (300, {"ef": 300})]


def test_few_allowed_rows_are_compared_here(index: MilvusIndex, engine: FakeEngine, vectors: Vectors) -> None:
    allowed = np.arange(ROWS) < 100
    assert index.search(vectors[3:4], 5, allowed=allowed).rows[0, 0] == 3
    assert engine.asked == []


def test_an_expression_goes_to_the_engine_with_a_mask_alone(
    index: MilvusIndex, engine: FakeEngine, vectors: Vectors
) -> None:
    filtered = index.filtered_by("column_0 < 5")
    engine.passes = HALF
    filtered.search(vectors[:1], 5)
    found = filtered.search(vectors[:1], 5, allowed=HALF)
    assert [(asked.limit, asked.expression) for asked in engine.asked] == [(64, ""), (64, "column_0 < 5")]
    assert HALF[found.rows].all()


def test_the_mask_judges_what_an_expression_lets_through_and_exact_search_refills(
    index: MilvusIndex, engine: FakeEngine, vectors: Vectors
) -> None:
    for passes in (np.ones(ROWS, dtype=np.bool_), np.zeros(ROWS, dtype=np.bool_)):
        engine.passes = passes
        found = index.filtered_by("wrong").search(vectors[:5], 10, allowed=HALF)
        truth = index.exact_search(vectors[:5], 10, allowed=HALF)
        np.testing.assert_array_equal(found.rows, truth.rows)


def test_a_mask_without_an_expression_asks_for_more_rows(
    index: MilvusIndex, engine: FakeEngine, vectors: Vectors
) -> None:
    found = index.search(vectors[:5], 10, allowed=HALF)
    assert [(asked.limit, asked.expression) for asked in engine.asked] == [(160, "")]  # 64 · 2 · 1.25
    np.testing.assert_array_equal(found.rows, index.exact_search(vectors[:5], 10, allowed=HALF).rows)


class SomeRows(FakeEngine):
    """Finds the same rows for every query, spread over all."""

    def search(
        self, name: str, queries: Vectors, limit: int, parameters: Mapping[str, int], expression: str = ""
    ) -> NDArray[np.int64]:
        return np.linspace(0, self.rows - 1, limit).astype(np.int64)[None].repeat(len(queries), axis=0)

    def __init__(self, rows: int) -> None:
        super().__init__(np.empty((0, 1), np.float32))
        self.rows = rows


def test_a_search_reads_the_vectors_of_the_candidates_and_no_other(tmp_path: Path) -> None:
    """The file is as large as 400,000 vectors of 512 dimensions, 820 MB, and holds nothing but its end."""
    rows, dim = 400_000, 512
    vectors = np.memmap(tmp_path / "vectors", np.float32, "w+", shape=(rows, dim))
    spec = IndexSpec(engine="milvus", name="vectors", factory="HNSW", depth=96, rows=rows, dim=dim)
    before = psutil.Process().memory_info().rss
    index = MilvusIndex(spec, SomeRows(rows), vectors)
    assert index.search(np.eye(1, dim, dtype=np.float32), 50).rows.shape == (1, 50)
    assert psutil.Process().memory_info().rss - before < 32e6


def test_more_rows_than_milvus_gives_are_found_here() -> None:
    rows = MOST_FOUND + 10
    vectors = unit_rows(np.random.default_rng(0).standard_normal((rows, 2)))
    engine = FakeEngine(vectors)
    spec = IndexSpec(engine="milvus", name="vectors", factory="FLAT", depth=DEPTH, rows=rows, dim=2)
    index = MilvusIndex(spec, engine, vectors)
    assert index.search(vectors[:1], rows).rows.shape == (1, rows)
    assert engine.asked == []
    index.search(vectors[:1], MOST_FOUND)
    assert [asked.limit for asked in engine.asked] == [MOST_FOUND]


def test_an_engine_that_is_away_is_told_and_what_needs_none_is_answered(
    index: MilvusIndex, engine: FakeEngine, vectors: Vectors
) -> None:
    engine.trouble = "Milvus does not answer"
    with pytest.raises(IndexAway, match="Milvus does not answer"):
        index.search(vectors[:1], 5)
    with pytest.raises(IndexAway, match="Milvus does not answer"):
        index.probe()
    assert index.trouble == "Milvus does not answer"
    assert index.exact_search(vectors[7:8], 1).rows.tolist() == [[7]]
    np.testing.assert_array_equal(index.vectors_of(np.array([5])), vectors[5:6])
