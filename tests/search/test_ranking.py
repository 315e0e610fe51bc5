"""Pages cut from one order hold every row once, whatever their size; brute force is the judge of the order."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.base import IndexSpec, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.search.ranking import (
    FOLD_BLOCK_ROWS,
    FRONT_ROWS,
    NEAR_DUPLICATE_COSINE,
    BeyondFront,
    Ranking,
    cut_page,
    fold,
)

ROWS, DIM = 400, 16


def random_units(rows: int, dim: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, dim)))


def flat(vectors: Vectors) -> VectorIndex:
    rows, dim = vectors.shape
    return FaissIndex.build(IndexSpec(rows=rows, dim=dim), vectors)


def hnsw(vectors: Vectors) -> VectorIndex:
    """A graph that is searched so narrowly that it misses rows."""
    rows, dim = vectors.shape
    return FaissIndex.build(IndexSpec(factory="HNSW8", search_parameters={"efSearch": 8}, rows=rows, dim=dim), vectors)


VECTORS = random_units(ROWS, DIM)
INDEXES = {"flat": flat(VECTORS), "hnsw": hnsw(VECTORS)}
kinds = pytest.mark.parametrize("kind", list(INDEXES))


def brute_force(vector: Vectors, allowed: NDArray[np.bool_] | None = None, without: tuple[int, ...] = ()) -> list[int]:
    """All rows that may be found, by cosine in double precision, ties in row order."""
    cosines = VECTORS.astype(np.float64) @ vector.astype(np.float64)
    order = np.argsort(-cosines, kind="stable").tolist()
    return [row for row in order if (allowed is None or allowed[row]) and row not in without]


def walk(ranking: Callable[[], Ranking], k: int, **options: float | bool) -> list[int]:
    """The rows of all pages of ``k``, each page cut from a ranking of its own, as requests do."""
    rows: list[int] = []
    while True:
        page = cut_page(ranking(), k, len(rows), **options)  # type: ignore[arg-type]
        rows += page.rows
        if not page.more:
            return rows
        assert len(page.rows) == k


@kinds
@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 50), seed=st.integers(0, 1000), share=st.sampled_from([None, 0.02, 0.3, 0.9]))
def test_pages_hold_every_row_that_may_be_found_once(kind: str, k: int, seed: int, share: float | None) -> None:
    rng = np.random.default_rng(seed)
    vector = random_units(1, DIM, seed + 1)[0]
    allowed = None if share is None else rng.random(ROWS) < share
    without = tuple(rng.integers(ROWS, size=seed % 3).tolist())
    rows = walk(lambda: Ranking(INDEXES[kind], vector, allowed=allowed, without=without), k)
    assert sorted(rows) == sorted(brute_force(vector, allowed, without))


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 50), seed=st.integers(0, 1000), share=st.sampled_from([None, 0.02, 0.3, 0.9]))
def test_pages_of_an_exact_index_stand_in_the_order_of_brute_force(k: int, seed: int, share: float | None) -> None:
    vector = random_units(1, DIM, seed + 1)[0]
    allowed = None if share is None else np.random.default_rng(seed).random(ROWS) < share
    rows = walk(lambda: Ranking(INDEXES["flat"], vector, allowed=allowed), k)
    expected = brute_force(vector, allowed)
    assert sorted(rows) == sorted(expected)
    # Two rows may change places only where their cosines are as near as rounding.
    np.testing.assert_allclose(VECTORS[rows] @ vector, VECTORS[expected] @ vector, atol=1e-6)


@kinds
def test_the_order_is_the_same_whatever_the_size_of_the_pages(kind: str) -> None:
    vector = random_units(1, DIM, 7)[0]
    walks = [walk(lambda: Ranking(INDEXES[kind], vector), k) for k in (1, 7, 50)]
    assert walks[0] == walks[1] == walks[2]


@kinds
@pytest.mark.parametrize("count", [0, 1, 3, 40, ROWS])
def test_k_results_come_when_a_filter_lets_k_through(kind: str, count: int) -> None:
    allowed = np.zeros(ROWS, dtype=np.bool_)
    allowed[np.random.default_rng(count).permutation(ROWS)[:count]] = True
    vector = random_units(1, DIM, 3)[0]
    page = cut_page(Ranking(INDEXES[kind], vector, allowed=allowed), 50)
    assert len(page.rows) == min(50, count)
    assert allowed[page.rows].all()
    assert page.more is (count > 50)
    if count <= FRONT_ROWS:
        assert page.rows == brute_force(vector, allowed)


@kinds
def test_scores_are_the_cosines_also_behind_the_front(kind: str) -> None:
    vector = random_units(1, DIM, 5)[0]
    page = cut_page(Ranking(INDEXES[kind], vector), 200, 30)
    np.testing.assert_allclose(page.scores, VECTORS[page.rows] @ vector, atol=1e-6)


@kinds
def test_what_is_behind_the_front_is_not_searched_for_if_only_the_front_is_wanted(kind: str) -> None:
    index, query = INDEXES[kind], random_units(1, DIM, 6)[0]
    whole = Ranking(index, query, front=20)
    front = Ranking(index, query, front=20, front_only=True)
    np.testing.assert_array_equal(front.first(20)[0], whole.first(20)[0])
    with pytest.raises(BeyondFront):
        front.first(21)


def test_ties_stand_in_row_order_on_any_page() -> None:
    vectors = np.tile(random_units(1, DIM), (300, 1))
    index = flat(vectors)
    page = cut_page(Ranking(index, vectors[0], without=[5]), 300)
    assert page.rows == [row for row in range(300) if row != 5]


def test_what_the_graph_misses_stands_behind_its_front() -> None:
    # Sixty copies of each vector link to each other and to hardly anything else: a walk cannot reach them all.
    vectors = np.repeat(random_units(10, 8), 60, axis=0)
    ranking = Ranking(hnsw(vectors), random_units(1, 8, 1)[0])
    rows, _ = ranking.first(600)
    assert sorted(rows.tolist()) == list(range(600))


@kinds
@pytest.mark.parametrize("least", [-1.0, 0.0, 0.3, 0.55, 1.0])
def test_the_list_ends_where_scores_fall_below_the_least(kind: str, least: float) -> None:
    vector = random_units(1, DIM, 11)[0]
    rows = walk(lambda: Ranking(INDEXES[kind], vector), 20, min_score=least)
    assert (VECTORS[rows] @ vector >= least - 1e-6).all()
    if kind == "flat":
        assert len(rows) == int((VECTORS @ vector >= least).sum())


def test_a_page_behind_the_last_row_is_empty_and_the_last() -> None:
    page = cut_page(Ranking(INDEXES["flat"], VECTORS[0]), 10, ROWS)
    assert (page.rows, page.more) == ([], False)


def test_the_last_full_page_says_that_it_is_the_last() -> None:
    assert cut_page(Ranking(INDEXES["flat"], VECTORS[0]), 10, ROWS - 10).more is False
    assert cut_page(Ranking(INDEXES["flat"], VECTORS[0]), 10, ROWS - 11).more is True


# Near-duplicates


def greedy(vectors: Vectors, content: list[int] | None = None) -> dict[int, list[int]]:
    """Brute force: the places that are kept, each with those that were folded into it."""
    kept: dict[int, list[int]] = {}
    for place, vector in enumerate(vectors):
        for keeper, folded in kept.items():
            if vectors[keeper] @ vector >= NEAR_DUPLICATE_COSINE or (content and content[keeper] == content[place]):
                folded.append(place)
                break
        else:
            kept[place] = []
    return kept


def clustered(rows: int, seed: int, spread: float = 0.06) -> Vectors:
    """Groups of near-duplicates of about ten rows, mixed."""
    rng = np.random.default_rng(seed)
    centres = random_units(max(1, rows // 10), DIM, seed)[rng.integers(max(1, rows // 10), size=rows)]
    return unit_rows(centres + spread * rng.standard_normal((rows, DIM)) / 2)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 120), seed=st.integers(0, 10**6), spread=st.floats(0, 0.2), equal=st.booleans())
def test_folding_keeps_and_counts_as_comparing_each_with_each(rows: int, seed: int, spread: float, equal: bool) -> None:
    vectors = clustered(rows, seed, spread)
    cosines = vectors @ vectors.T
    if (np.abs(cosines - NEAR_DUPLICATE_COSINE) < 1e-5).any():
        return  # as near to the threshold as rounding
    content = np.random.default_rng(seed).integers(30, size=rows) if equal else None
    kept, counts = fold(vectors, rows + 1, content)
    expected = greedy(vectors, None if content is None else content.tolist())
    assert dict(zip(kept, counts, strict=True)) == {place: len(folded) for place, folded in expected.items()}


def test_equal_images_are_folded_whatever_their_vectors() -> None:
    kept, counts = fold(np.eye(4, dtype=np.float32), 9, np.array([7, 8, 7, 7]))
    assert (kept, counts) == ([0, 1], [2, 0])


def test_a_chain_of_small_steps_is_not_one_image() -> None:
    step = np.arccos(NEAR_DUPLICATE_COSINE) * 0.9
    chain = np.array([[np.cos(i * step), np.sin(i * step)] for i in range(5)], dtype=np.float32)
    assert fold(chain, 9)[0] == [0, 2, 4]


def test_folding_further_down_changes_nothing_above() -> None:
    vectors = clustered(3 * FOLD_BLOCK_ROWS, 4)
    kept, counts = fold(vectors, 10**6)
    for rows in (FOLD_BLOCK_ROWS, 2 * FOLD_BLOCK_ROWS):
        part = fold(vectors[:rows], 10**6)
        assert part == (kept[: len(part[0])], counts[: len(part[0])])
    assert kept == list(greedy(vectors)), "across the blocks too"


@pytest.mark.parametrize("build", [flat, hnsw], ids=["flat", "hnsw"])
@pytest.mark.parametrize("k", [3, 20, 50])
def test_folded_pages_hold_no_near_duplicates_and_lose_no_group(
    build: Callable[[Vectors], VectorIndex], k: int
) -> None:
    vectors = clustered(700, 2)
    index, vector = build(vectors), random_units(1, DIM, 9)[0]
    rows = walk(lambda: Ranking(index, vector, front=FOLD_BLOCK_ROWS), k, dedupe=True)
    assert len(set(rows)) == len(rows) < 700
    cosines = vectors[rows] @ vectors[rows].T
    np.fill_diagonal(cosines, 0)
    assert cosines.max() < NEAR_DUPLICATE_COSINE
    assert ((vectors @ vectors[rows].T).max(axis=1) >= NEAR_DUPLICATE_COSINE).all(), (
        "every row is one of them or near one"
    )


def test_the_count_of_a_folded_result_does_not_depend_on_its_page() -> None:
    vectors = clustered(700, 2)
    index, vector = flat(vectors), random_units(1, DIM, 9)[0]

    def page(k: int, offset: int) -> list[tuple[int, int]]:
        cut = cut_page(Ranking(index, vector, front=FOLD_BLOCK_ROWS), k, offset, dedupe=True)
        return list(zip(cut.rows, cut.duplicates, strict=True))

    whole = page(50, 0)
    assert sum(count for _, count in whole) > 50
    assert whole == [row for offset in range(0, 50, 5) for row in page(5, offset)]
