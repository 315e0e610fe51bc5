"""The full sweep: the fastest index that a budget allows, confirmed by queries that the sweep has not seen."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import IndexSpec, Measurement, VectorIndex
from clip_retrieval.indexes.choose import TuningQueries, build_family
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.families import Family, families
from clip_retrieval.indexes.measure import Meter, SearchTimes
from clip_retrieval.indexes.sweep import Budget, SweepOutcome, Trial, find_index, pareto_front
from clip_retrieval.progress import Silent
from clip_retrieval.records import Modality
from tests.indexes.test_choose import CAPTIONS, FEW_TIMINGS, IMAGES, SlowFlat, judged_recall

SPEC = IndexSpec(rows=9, dim=4)
SEEN = Measurement(recalls={1: 0.95, 10: 0.9, 50: 0.92}, p50_ms=1, p99_ms=2, memory_mb=10, resident_mb=30)
SHORT = [
    Family("flat", "Flat"),
    Family("graph", "HNSW8,SQ8", {"efConstruction": 40}, ({"efSearch": 8}, {"efSearch": 200})),
    Family("cells", "IVF16,SQ4", {}, ({"nprobe": 2}, {"nprobe": 16}), (64, 256)),
]
QUICK = Meter(**FEW_TIMINGS)


@pytest.fixture(scope="module")
def queries() -> TuningQueries:
    return TuningQueries.draw(IMAGES, CAPTIONS, "captions")


def found(queries: TuningQueries, budget: Budget, scratch: Path, meter: Meter = QUICK) -> SweepOutcome:
    return find_index(IMAGES, queries, SHORT, budget, scratch, Silent(), meter=meter)


def trial(recall: float = 0.9, **measured: float) -> Trial:
    seen = SEEN.model_copy(update={"recalls": {1: 1.0, 50: recall}, **measured})
    return Trial("any", SPEC, seen, 1.0, Path("any"))


class TestBudget:
    @pytest.mark.parametrize(
        ("budget", "missed"),
        [
            (Budget(0.9), []),
            (Budget(0.9, 2, 10), []),
            (Budget(0.95), ["recall@10 0.9000 is below 0.95"]),
            (Budget(0.9, 1.5), ["p99 2 ms is above 1.5 ms"]),
            (Budget(0.9, None, 5), ["10 MB is above 5 MB"]),
            (Budget(0.95, 1, 5), ["recall", "p99", "MB"]),
            (Budget(0.9, None, None, 30), []),
            (Budget(0.9, None, 10, 20), ["30 MB with all that is read is above 20 MB"]),
        ],
    )
    def test_says_what_is_missed(self, budget: Budget, missed: list[str]) -> None:
        said = budget.misses(SEEN)
        assert len(said) == len(missed)
        assert all(part in line for part, line in zip(missed, said, strict=True))
        assert (budget.excess(SEEN) == 0) == (not missed)

    def test_the_excess_grows_with_each_miss(self) -> None:
        excesses = [
            Budget(*limits).excess(SEEN) for limits in ((0.9, 1, 10), (0.95, 1, 10), (0.95, 1, 2), (0.95, 0.5, 2))
        ]
        assert excesses == sorted(set(excesses))


class TestFront:
    def test_holds_what_nothing_beats(self) -> None:
        quick = trial(recall=0.8, p50_ms=0.1)
        small = trial(recall=0.8, p50_ms=0.5, memory_mb=1)
        beaten = trial(recall=0.8, p50_ms=0.6, memory_mb=2)
        exact = trial(recall=1.0, p50_ms=5)
        assert pareto_front([exact, beaten, quick, small]) == [quick, small, exact]

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
    def test_everything_else_is_beaten_by_one_of_it(self, figures: list[tuple[int, int, int]]) -> None:
        given_trials = [trial(recall=r / 3, p50_ms=p, memory_mb=m) for r, p, m in figures]
        best = pareto_front(given_trials)
        assert best
        for one in given_trials:
            seen = one.measured
            costs = (-(seen.recall or 0), seen.p50_ms or 0, seen.memory_mb or 0)
            measured = [b.measured for b in best]
            others = [(-(m.recall or 0), m.p50_ms or 0, m.memory_mb or 0) for m in measured]
            assert any(all(x <= y for x, y in zip(other, costs, strict=True)) for other in others)


class Forgetful(SlowFlat):
    """Says that an approximate index finds a tenth of what it should for the held-out queries."""

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
        held_out = TuningQueries.draw(IMAGES, CAPTIONS, "captions").held_out
        lost = np.array_equal(queries, held_out) and not index.spec.exact
        return seen.model_copy(update={"recalls": {10: 0.1}}) if lost else seen


class TestSearch:
    def test_every_setting_is_measured_until_one_finds_everything(self, queries: TuningQueries, tmp_path: Path) -> None:
        outcome = found(queries, Budget(0.5), tmp_path)
        tried = [(t.spec.factory, t.spec.search_parameters, t.spec.depth) for t in outcome.trials]
        assert tried[0] == ("Flat", {}, 64)
        assert ("HNSW8,SQ8", {"efSearch": 8}, 64) in tried
        assert ("IVF16,SQ4", {"nprobe": 16}, 256) in tried
        for each in outcome.trials:
            assert each.measured.query_kind == "captions"
            assert each.measured.queries == len(queries.sweep)
            assert each.loaded_p99_ms > 0

    def test_recall_and_memory_are_what_they_are_said_to_be(self, queries: TuningQueries, tmp_path: Path) -> None:
        for each in found(queries, Budget(0.5), tmp_path).trials:
            index = FaissIndex.load(each.spec, each.file, IMAGES)
            judged = {k: judged_recall(index, IMAGES, queries.sweep, k) for k in (1, 10, 50)}
            assert each.measured.recalls == pytest.approx(judged, abs=1e-3)
            held = IMAGES.nbytes if each.spec.exact else each.file.stat().st_size
            assert each.measured.memory_mb == held / 1e6

    def test_the_fastest_within_the_budget_is_chosen_and_confirmed(
        self, queries: TuningQueries, tmp_path: Path
    ) -> None:
        budget = Budget(0.9, None, 0.2)
        outcome = found(queries, budget, tmp_path)
        assert outcome.chosen is not None
        assert outcome.confirmed is not None
        refused = [t for t, _ in outcome.refused]
        within = [t.measured for t in outcome.trials if not budget.misses(t.measured) and t not in refused]
        assert outcome.chosen.measured.p50_ms == min(seen.p50_ms or 0 for seen in within)
        assert not outcome.chosen.spec.exact, "a flat index holds the vectors, which are too large"
        judged = {k: judged_recall(outcome.confirmed.index, IMAGES, queries.held_out, k) for k in (1, 10, 50)}
        assert outcome.confirmed.measurement.recalls == pytest.approx(judged, abs=1e-3)
        assert outcome.confirmed.measurement.queries == len(queries.held_out)
        assert outcome.confirmed.measurement.memory_mb == outcome.chosen.measured.memory_mb

    def test_within_little_resident_memory_an_index_is_chosen_whose_codes_give_the_scores(
        self, queries: TuningQueries, tmp_path: Path
    ) -> None:
        by_codes = Family("codes", "IVF16,SQ4,Refine(SQ8)", {}, ({"nprobe": 16, "k_factor_rf": 4},), scores="codes")
        budget = Budget(0.9, resident_mb=IMAGES.nbytes / 1e6 * 0.6)
        outcome = find_index(IMAGES, queries, [*SHORT, by_codes], budget, tmp_path, Silent(), meter=QUICK)
        for each in outcome.trials:
            read = 0 if each.spec.exact or each.family == "codes" else IMAGES.nbytes / 1e6
            assert each.measured.resident_mb == pytest.approx((each.measured.memory_mb or 0) + read)
            assert (each.measured.score_error is None) == (each.family != "codes")
        assert outcome.confirmed is not None
        assert outcome.confirmed.index.spec.scores == "codes"
        seen = outcome.confirmed.measurement
        assert seen.resident_mb == seen.memory_mb
        assert 0 < (seen.score_error or 0) < 0.01

    def test_where_nothing_meets_the_budget_the_nearest_is_told(self, queries: TuningQueries, tmp_path: Path) -> None:
        outcome = found(queries, Budget(0.99, None, 0.001), tmp_path)
        assert outcome.chosen is None
        assert outcome.confirmed is None
        assert outcome.nearest in outcome.trials
        excess = Budget(0.99, None, 0.001).excess
        assert excess(outcome.nearest.measured) == min(excess(t.measured) for t in outcome.trials) > 0

    def test_what_held_out_queries_do_not_confirm_is_refused(self, queries: TuningQueries, tmp_path: Path) -> None:
        outcome = found(queries, Budget(0.5), tmp_path, Forgetful(**FEW_TIMINGS))
        assert outcome.chosen is not None
        assert outcome.chosen.spec.exact
        assert outcome.refused
        assert all(missed == ["recall@10 0.1000 is below 0.5"] for _, missed in outcome.refused)


class TestFamilies:
    @pytest.mark.parametrize(("rows", "dim"), [(0, 8), (1, 8), (1023, 64), (1024, 7), (1024, 32)])
    def test_faiss_builds_every_one_of_them(self, rows: int, dim: int) -> None:
        vectors = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
        names = [family.name for family in families(rows, dim)]
        assert names[0] == "flat"
        assert len(set(names)) == len(names)
        for family in families(rows, dim):
            index = build_family(family, vectors).index
            if not index.spec.exact:
                for setting in family.settings:
                    for depth in family.depths:
                        assert index.with_search(setting, depth).search(vectors[:2], 5).rows.shape == (2, 5)

    @pytest.mark.parametrize(
        ("rows", "cells"), [(2000, 32), (10_000, 256), (100_000, 2048), (1_000_000, 4096), (10_000_000, 4096)]
    )
    def test_cells_grow_with_the_root_of_the_rows(self, rows: int, cells: int) -> None:
        assert f"IVF{cells}" in next(f.factory for f in families(rows, 512) if f.name == "IVF").replace("_", ",").split(
            ","
        )
