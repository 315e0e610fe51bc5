"""Several indexes searched as one: brute force over the rows that are left is the judge."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.base import FLAT, IndexSpec, SearchHits
from clip_retrieval.indexes.faiss_index import FaissIndex, FilterLimits
from clip_retrieval.live.live_index import LiveIndex

DIM = 32
CODES = f"HR{DIM},PQ{DIM // 2}x4fs"
LIMITS = FilterLimits(exact_rows=20, scan_exact_rows=20)
"""Under which these small parts are searched by their codes, also where few rows are allowed."""


def random_units(rows: int, seed: int) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM)))


def index_of(vectors: Vectors, factory: str = FLAT, depth: int = 64) -> FaissIndex:
    spec = IndexSpec(factory=factory, depth=depth, rows=len(vectors), dim=DIM)
    return FaissIndex.build(spec, vectors, filter_limits=LIMITS)


def brute_force(vectors: Vectors, queries: Vectors, k: int, live: NDArray[np.bool_]) -> list[list[int]]:
    cosines = (queries.astype(np.float64) @ vectors.astype(np.float64).T).round(6)
    cosines[:, ~live] = -np.inf
    order: list[list[int]] = np.argsort(-cosines, axis=1, kind="stable").tolist()
    return [rows[: min(k, int(live.sum()))] for rows in order]


def assert_best(found: SearchHits, vectors: Vectors, queries: Vectors, k: int, live: NDArray[np.bool_]) -> None:
    """The best rows that live are found, as brute force in double precision has them; equal rows stand in row order.

    Rows whose cosines differ by less than single precision tells apart may stand in either order.
    """
    cosines = queries.astype(np.float64) @ vectors.astype(np.float64).T
    for rows, exact in zip(found.rows.tolist(), cosines, strict=True):
        assert len(rows) == len(set(rows)) == min(k, int(live.sum()))
        assert live[rows].all()
        np.testing.assert_allclose(exact[rows], np.sort(exact[live])[::-1][: len(rows)], atol=1e-6)
        for row in rows:
            equal = np.flatnonzero((vectors == vectors[row]).all(axis=1) & live).tolist()
            among = [other for other in rows if other in equal]
            assert among == equal[: len(among)]


def recall(found: SearchHits, truth: list[list[int]]) -> float:
    pairs = zip(found.rows.tolist(), truth, strict=True)
    return float(np.mean([len({*rows} & {*true}) / len(true) for rows, true in pairs]))


@settings(max_examples=60, deadline=None)
@example(sizes=[1, 1, 27, 40], removed=0.0, k=59, seed=98)  # two cosines 5e-7 apart
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    removed=st.floats(0, 1),
    k=st.integers(1, 90),
    seed=st.integers(0, 1000),
)
def test_exact_parts_give_what_brute_force_finds(sizes: list[int], removed: float, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = random_units(sum(sizes), seed)
    vectors[rng.integers(len(vectors), size=len(vectors) // 2)] = vectors[0]  # equal scores, within and across parts
    live = rng.random(len(vectors)) >= removed
    parts = [index_of(part) for part in np.split(vectors, np.cumsum(sizes)[:-1])]
    queries = random_units(3, seed + 1)
    allowed = live & (rng.random(len(vectors)) < 0.5)
    index, whole = LiveIndex(parts, live), LiveIndex(parts, None)
    everything = np.ones(len(vectors), np.bool_)
    assert_best(index.search(queries, k), vectors, queries, k, live)
    assert_best(index.search(queries, k, allowed=live), vectors, queries, k, live)
    assert_best(index.search(queries, k, allowed=allowed), vectors, queries, k, allowed)
    assert_best(index.exact_search(queries, k), vectors, queries, k, live)
    assert_best(index.exact_search(queries, k, allowed=allowed), vectors, queries, k, allowed)
    assert_best(whole.search(queries, k), vectors, queries, k, everything)
    assert_best(whole.exact_search(queries, k), vectors, queries, k, everything)
    rows = rng.integers(len(vectors), size=20)
    assert np.array_equal(whole.vectors_of(rows), vectors[rows])


@pytest.fixture(scope="module")
def parts() -> list[FaissIndex]:
    """A large part and a smaller one, both searched by codes, and a short one that is searched row by row."""
    return [
        index_of(random_units(3000, 1), CODES, 128),
        index_of(random_units(1500, 2), CODES, 96),
        index_of(random_units(40, 3)),
    ]


def all_vectors(parts: list[FaissIndex]) -> Vectors:
    return np.concatenate([part.vectors_of(np.arange(part.spec.rows)) for part in parts])


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.7])
def test_approximate_parts_find_no_removed_row_and_keep_their_recall(parts: list[FaissIndex], share: float) -> None:
    vectors, queries = all_vectors(parts), random_units(100, 9)
    live = np.random.default_rng(5).random(len(vectors)) >= share
    found = LiveIndex(parts, live).search(queries, 10)
    assert live[found.rows].all()
    assert recall(found, brute_force(vectors, queries, 10, live)) >= 0.99
    cosines = np.einsum("qd,qkd->qk", queries, vectors[found.rows])
    assert np.allclose(found.scores, cosines, atol=1e-6)
    assert (np.diff(found.scores) <= 0).all()


def test_short_results_are_prefixes_of_long_ones(parts: list[FaissIndex]) -> None:
    rows = sum(part.spec.rows for part in parts)
    queries = random_units(20, 9)
    for live in (None, np.random.default_rng(5).random(rows) >= 0.05):
        index = LiveIndex(parts, live)
        longest = index.search(queries, index.spec.depth).rows
        for k in (1, 5, 10, 64, 96):
            assert np.array_equal(index.search(queries, k).rows, longest[:, :k])


def test_a_search_has_all_its_results_where_all_rows_near_the_query_were_removed(parts: list[FaissIndex]) -> None:
    vectors, query = all_vectors(parts), random_units(1, 9)
    live = np.ones(len(vectors), np.bool_)
    live[brute_force(vectors, query, 400, live)[0]] = False
    found = LiveIndex(parts, live).search(query, 50)
    assert live[found.rows].all()
    assert recall(found, brute_force(vectors, query, 50, live)) >= 0.98


def test_an_index_without_rows_that_are_left_finds_nothing(parts: list[FaissIndex]) -> None:
    rows = sum(part.spec.rows for part in parts)
    index = LiveIndex(parts, np.zeros(rows, np.bool_))
    assert index.search(random_units(2, 9), 5).rows.shape == (2, 0)
    assert index.exact_search(random_units(2, 9), 5).rows.shape == (2, 0)


def test_it_says_what_it_is(parts: list[FaissIndex]) -> None:
    index = LiveIndex(parts, None)
    assert (index.spec.rows, index.spec.dim, index.spec.exact, index.spec.depth) == (4540, DIM, False, 96)
    assert index.compared_values == 40 * DIM, "only the last part is compared row by row"
    assert LiveIndex(parts[2:], None).spec.exact


def test_a_mask_of_another_shape_is_refused(parts: list[FaissIndex]) -> None:
    index = LiveIndex(parts, None)
    with pytest.raises(ValueError, match=r"\(7,\), the index has 4540 rows"):
        index.search(random_units(1, 9), 5, allowed=np.ones(7, np.bool_))
    with pytest.raises(ValueError, match=r"\(7,\), the index has 4540 rows"):
        index.exact_search(random_units(1, 9), 5, allowed=np.ones(7, np.bool_))
