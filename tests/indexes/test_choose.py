"""The index that a collection gets is chosen by measuring, and what is said of its recall is true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes import choose as tune
from clip_retrieval.indexes.choose import Queries, choose_index, recall_at_k
from clip_retrieval.indexes.faiss_index import Index, IndexSpec


def clustered(rows: int, seed: int, dim: int = 64) -> Vectors:
    """Unit vectors around 20 centres that are the same for every ``seed``, far enough apart to be hard for a graph."""
    rng = np.random.default_rng(seed)
    centres = unit_rows(np.random.default_rng(99).standard_normal((20, dim)))
    return unit_rows(centres[rng.integers(20, size=rows)] + 3 * rng.standard_normal((rows, dim)) / np.sqrt(dim))


IMAGES = clustered(1200, seed=1)
CAPTIONS = clustered(100, seed=2)


def judged_recall(index: Index, vectors: Vectors, queries: Vectors) -> float:
    """Recall@10 by brute force with numpy."""
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = index.search(queries, 10)[1]
    return float(np.mean([len(set(f) & set(t)) / 10 for f, t in zip(found.tolist(), truth.tolist(), strict=True)]))


def pretend_that_a_graph_pays(patch: pytest.MonkeyPatch) -> None:
    """So few rows are searched faster flat; pretend that a flat search is slow, so that the graph counts."""
    measured = tune.single_ms

    def slow_if_flat(index: Index, queries: Vectors) -> tuple[float, float]:
        p50, p99 = measured(index, queries)
        return p50 + 1000 * index.spec.exact, p99

    patch.setattr(tune, "ALWAYS_FLAT_ROWS", 100)
    patch.setattr(tune, "TIMED_QUERIES", 20)
    patch.setattr(tune, "single_ms", slow_if_flat)


@pytest.fixture(scope="module")
def chosen() -> dict[float, Index]:
    """The index that is chosen for each recall that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        pretend_that_a_graph_pays(patch)
        return {
            recall: choose_index(IMAGES, CAPTIONS, query_kind="captions", recall=recall) for recall in (0.5, 0.9, 0.99)
        }


class TestQueries:
    @given(st.integers(2, 100), st.integers(0, 99))
    def test_fall_into_two_halves_that_share_none(self, count: int, seed: int) -> None:
        drawn = Queries.draw(IMAGES[:50], CAPTIONS[:count], "captions", seed)
        halves = [{line.tobytes() for line in half} for half in (drawn.sweep, drawn.held_out)]
        assert not halves[0] & halves[1]
        assert len(halves[0]) + len(halves[1]) == count
        assert 0 <= len(halves[0]) - len(halves[1]) <= 1

    def test_each_has_the_rows_that_brute_force_finds(self) -> None:
        drawn = Queries.draw(IMAGES, CAPTIONS, "captions")
        for asked, truth in ((drawn.sweep, drawn.sweep_truth), (drawn.held_out, drawn.held_out_truth)):
            np.testing.assert_array_equal(np.sort(truth), np.sort(np.argsort(-(asked @ IMAGES.T), axis=1)[:, :10]))

    def test_a_single_query_is_in_both_halves(self) -> None:
        drawn = Queries.draw(IMAGES, CAPTIONS[:1], "captions")
        np.testing.assert_array_equal(drawn.sweep, drawn.held_out)


class TestRecall:
    def test_is_the_share_of_true_neighbours_that_was_found(self) -> None:
        truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
        found = np.array([[4, 3, 9, 1], [5, -1, -1, -1]])
        assert recall_at_k(found, truth) == (3 / 4 + 1 / 4) / 2

    @given(
        arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 10)), elements=st.integers(0, 10**6), unique=True)
    )
    def test_is_one_for_the_truth_in_any_order_and_nought_for_other_rows(self, truth: np.ndarray) -> None:
        assert recall_at_k(truth[:, ::-1], truth) == 1
        assert recall_at_k(-1 - truth, truth) == 0

    @given(st.integers(0, 10))
    def test_counts_each_neighbour_once(self, hits: int) -> None:
        truth = np.arange(10)[None]
        assert recall_at_k(np.where(truth < hits, truth, -1), truth) == hits / 10


class TestChoice:
    def test_a_small_collection_is_searched_exactly(self) -> None:
        spec = choose_index(IMAGES[:500], CAPTIONS, query_kind="captions").spec
        assert (spec.factory, spec.recall_at_10, spec.queries, spec.query_kind) == ("Flat", 1, 50, "captions")
        assert spec.p50_ms is not None
        assert spec.p99_ms is not None
        assert 0 < spec.p50_ms <= spec.p99_ms
        assert spec.memory_mb == IMAGES[:500].nbytes / 1e6

    @pytest.mark.parametrize("recall", [0.5, 0.9, 0.99])
    def test_a_graph_has_at_least_the_recall_that_was_asked_for(
        self, chosen: dict[float, Index], recall: float
    ) -> None:
        index = chosen[recall]
        assert index.spec.factory == "HNSW16,SQ8"
        held_out = Queries.draw(IMAGES, CAPTIONS, "captions").held_out
        judged = judged_recall(index, IMAGES, held_out)
        assert judged >= recall
        assert index.spec.recall_at_10 == pytest.approx(judged, abs=1e-3)
        assert index.spec.queries == len(held_out) == 50

    def test_more_recall_needs_a_broader_search(self, chosen: dict[float, Index]) -> None:
        breadths = [chosen[recall].spec.parameters["efSearch"] for recall in (0.5, 0.9, 0.99)]
        assert breadths == sorted(breadths)
        assert breadths[0] < breadths[2]

    def test_a_graph_that_is_not_faster_is_not_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tune, "ALWAYS_FLAT_ROWS", 100)
        monkeypatch.setattr(tune, "single_ms", lambda index, q: (1.0, 1.0) if index.spec.exact else (2.0, 2.0))
        assert choose_index(IMAGES, CAPTIONS, query_kind="captions").spec.exact

    def test_a_recall_that_no_graph_reaches_is_searched_exactly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_that_a_graph_pays(monkeypatch)
        spec = choose_index(IMAGES, CAPTIONS, query_kind="captions", recall=1.01).spec
        assert (spec.factory, spec.recall_at_10) == ("Flat", 1)

    def test_a_choice_that_held_out_queries_do_not_confirm_is_not_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend_that_a_graph_pays(monkeypatch)
        held_out = Queries.draw(IMAGES, CAPTIONS, "captions").held_out
        judge = tune.measured

        def pessimist(index: Index, queries: Vectors, truth: np.ndarray, kind: tune.QueryKind) -> IndexSpec:
            spec = judge(index, queries, truth, kind)
            lost = len(queries) == len(held_out) and (queries == held_out).all() and not index.spec.exact
            return spec.model_copy(update={"recall_at_10": 0.0}) if lost else spec

        monkeypatch.setattr(tune, "measured", pessimist)
        assert choose_index(IMAGES, CAPTIONS, query_kind="captions", recall=0.5).spec.exact

    def test_a_sample_of_many_queries_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tune, "MAX_QUERIES", 30)
        assert choose_index(IMAGES[:200], CAPTIONS, query_kind="captions").spec.queries == 30

    @pytest.mark.parametrize(("rows", "queries"), [(0, 5), (5, 0), (0, 0)])
    def test_without_rows_or_queries_nothing_is_measured(self, rows: int, queries: int) -> None:
        spec = choose_index(IMAGES[:rows], CAPTIONS[:queries], query_kind="captions").spec
        assert (spec.factory, spec.rows, spec.recall_at_10, spec.queries, spec.query_kind) == (
            "Flat",
            rows,
            None,
            0,
            "none",
        )
