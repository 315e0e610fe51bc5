"""The index that a collection gets is chosen by measuring, and what is said of its recall is true."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.base import Measurement, VectorIndex
from clip_retrieval.indexes.choose import Candidate, TuningQueries, choose_index
from clip_retrieval.indexes.measure import RECALL_KS, Meter, SearchTimes
from clip_retrieval.records import Modality


def clustered(rows: int, seed: int, dim: int = 64) -> Vectors:
    """Unit vectors around 20 centres that are the same for every ``seed``, far enough apart to be hard for a graph."""
    rng = np.random.default_rng(seed)
    centres = unit_rows(np.random.default_rng(99).standard_normal((20, dim)))
    return unit_rows(centres[rng.integers(20, size=rows)] + 3 * rng.standard_normal((rows, dim)) / np.sqrt(dim))


IMAGES = clustered(1200, seed=1)
CAPTIONS = clustered(100, seed=2)


def judged_recall(index: VectorIndex, vectors: Vectors, queries: Vectors, k: int = 10) -> float:
    """Recall@k by brute force with numpy."""
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    rows = index.search(queries, k).rows
    return float(np.mean([len(set(f) & set(t)) / k for f, t in zip(rows.tolist(), truth.tolist(), strict=True)]))


class SlowFlat(Meter):
    """So few rows are searched faster flat; this meter says that a flat search is slow, so that the graph counts."""

    def measure(
        self,
        index: VectorIndex,
        queries: Vectors,
        truth: NDArray[np.int64],
        query_kind: Modality,
        *,
        times: SearchTimes | None = None,
    ) -> Measurement:
        seen = super().measure(index, queries, truth, query_kind, times=times)
        return seen.model_copy(update={"p50_ms": (seen.p50_ms or 0) + 1000 * index.spec.exact})


class SlowGraph(Meter):
    """Says that every search takes 1 ms, and 2 ms if the index is approximate."""

    def times(
        self, index: VectorIndex, queries: Vectors, *, advance: Callable[[int], None] = lambda _: None
    ) -> SearchTimes:
        return SearchTimes(np.full((1, len(queries)), 1.0 if index.spec.exact else 2.0))


FEW_TIMINGS = {"timed_queries": 20, "rounds": 1, "warm_up": 0}


SLOW_FLAT = SlowFlat(**FEW_TIMINGS)


GRAPH, SCAN, CELLS = "HNSW16,SQ8", "HR64,PQ16x4fs", "HR64,IVF16,PQ32x4fsr"
RECALLS = {CELLS: (0.5,), GRAPH: (0.9, 0.95, 0.99), SCAN: (0.5, 0.9, 0.99)}
"""So many codes in so few cells do not reach more, and a graph is taken."""


def choose(recall: float = 0.99, meter: Meter = SLOW_FLAT, max_scanned_rows: int = 0) -> Candidate:
    return choose_index(
        IMAGES,
        CAPTIONS,
        query_kind="captions",
        recall=recall,
        meter=meter,
        always_flat_rows=100,
        max_scanned_rows=max_scanned_rows,
    )


@pytest.fixture(scope="module")
def chosen() -> dict[tuple[str, float], Candidate]:
    """The index that is chosen for each recall that is asked for, where a scan is too long and where it is not."""
    longest = {CELLS: 0, GRAPH: 0, SCAN: 1200}
    return {
        (factory, recall): choose(recall, max_scanned_rows=longest[factory])
        for factory, recalls in RECALLS.items()
        for recall in recalls
    }


class TestTuningQueries:
    @given(st.integers(2, 100), st.integers(0, 99))
    def test_fall_into_two_halves_that_share_none(self, count: int, seed: int) -> None:
        drawn = TuningQueries.draw(IMAGES[:50], CAPTIONS[:count], "captions", seed)
        halves = [{line.tobytes() for line in half} for half in (drawn.sweep, drawn.held_out)]
        assert not halves[0] & halves[1]
        assert len(halves[0]) + len(halves[1]) == count
        assert 0 <= len(halves[0]) - len(halves[1]) <= 1

    def test_each_has_the_rows_that_brute_force_finds(self) -> None:
        drawn = TuningQueries.draw(IMAGES, CAPTIONS, "captions")
        for asked, truth in ((drawn.sweep, drawn.sweep_truth), (drawn.held_out, drawn.held_out_truth)):
            np.testing.assert_array_equal(np.sort(truth), np.sort(np.argsort(-(asked @ IMAGES.T), axis=1)[:, :50]))

    def test_a_single_query_is_in_both_halves(self) -> None:
        drawn = TuningQueries.draw(IMAGES, CAPTIONS[:1], "captions")
        np.testing.assert_array_equal(drawn.sweep, drawn.held_out)

    def test_of_many_queries_a_sample_is_taken(self) -> None:
        drawn = TuningQueries.draw(IMAGES[:200], CAPTIONS, "captions", max_queries=30)
        assert (len(drawn.sweep), len(drawn.held_out)) == (30, 30)


class TestChoice:
    def test_a_small_collection_is_searched_exactly(self) -> None:
        candidate = choose_index(IMAGES[:500], CAPTIONS, query_kind="captions")
        spec, seen = candidate.index.spec, candidate.measurement
        assert (spec.factory, seen.recalls) == ("Flat", dict.fromkeys(RECALL_KS, 1.0))
        assert (seen.recall, seen.recall_at_10, seen.queries, seen.query_kind) == (1, 1, 50, "captions")
        assert seen.p50_ms is not None
        assert seen.p99_ms is not None
        assert 0 < seen.p50_ms <= seen.p99_ms
        assert seen.memory_mb == IMAGES[:500].nbytes / 1e6

    @pytest.mark.parametrize(
        ("factory", "recall"), [(factory, recall) for factory, recalls in RECALLS.items() for recall in recalls]
    )
    def test_an_index_has_the_recall_that_was_asked_for_at_every_measured_k(
        self, chosen: dict[tuple[str, float], Candidate], factory: str, recall: float
    ) -> None:
        candidate = chosen[factory, recall]
        assert candidate.index.spec.factory == factory
        held_out = TuningQueries.draw(IMAGES, CAPTIONS, "captions").held_out
        judged = {k: judged_recall(candidate.index, IMAGES, held_out, k) for k in (1, 10, 50)}
        assert min(judged.values()) >= recall
        assert candidate.measurement.recalls == pytest.approx(judged, abs=1e-3)
        assert candidate.measurement.recall == min(candidate.measurement.recalls.values())
        assert candidate.measurement.queries == len(held_out) == 50

    def test_more_recall_needs_a_broader_search(self, chosen: dict[tuple[str, float], Candidate]) -> None:
        specs = [chosen[GRAPH, recall].index.spec for recall in RECALLS[GRAPH]]
        breadths = [spec.search_parameters["efSearch"] for spec in specs]
        assert breadths == sorted(breadths)
        assert breadths[0] < breadths[2]

    @pytest.mark.parametrize("max_scanned_rows", [0, 1200])
    def test_an_index_that_is_not_faster_is_not_taken(self, max_scanned_rows: int) -> None:
        assert choose(meter=SlowGraph(), max_scanned_rows=max_scanned_rows).index.spec.exact

    @pytest.mark.parametrize("max_scanned_rows", [0, 1200])
    def test_a_recall_that_no_index_reaches_is_searched_exactly(self, max_scanned_rows: int) -> None:
        candidate = choose(recall=1.01, max_scanned_rows=max_scanned_rows)
        assert (candidate.index.spec.factory, candidate.measurement.recall) == ("Flat", 1)

    def test_a_choice_that_held_out_queries_do_not_confirm_is_not_taken(self) -> None:
        held_out = TuningQueries.draw(IMAGES, CAPTIONS, "captions").held_out

        class Pessimist(SlowFlat):
            """Says that an approximate index finds nothing for the held-out queries."""

            def measure(
                self,
                index: VectorIndex,
                queries: Vectors,
                truth: NDArray[np.int64],
                query_kind: Modality,
                *,
                times: SearchTimes | None = None,
            ) -> Measurement:
                lost = np.array_equal(queries, held_out) and not index.spec.exact
                return super().measure(index, queries, truth - lost * 10**6, query_kind, times=times)

        assert choose(recall=0.5, meter=Pessimist(**FEW_TIMINGS)).index.spec.exact

    def test_a_sample_of_many_queries_is_measured(self) -> None:
        candidate = choose_index(IMAGES[:200], CAPTIONS, query_kind="captions", max_queries=30)
        assert candidate.measurement.queries == 30

    @pytest.mark.parametrize(("rows", "queries"), [(0, 5), (5, 0), (0, 0)])
    def test_without_rows_or_queries_nothing_is_measured(self, rows: int, queries: int) -> None:
        candidate = choose_index(IMAGES[:rows], CAPTIONS[:queries], query_kind="captions")
        spec, seen = candidate.index.spec, candidate.measurement
        assert (spec.factory, spec.rows) == ("Flat", rows)
        assert (seen.recalls, seen.recall, seen.recall_at_10) == ({}, None, None)
        assert (seen.queries, seen.query_kind, seen.p50_ms) == (0, None, None)
