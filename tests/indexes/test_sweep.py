"""The full sweep: the fastest index that a budget allows, confirmed by queries that the sweep has not seen."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.indexes import choose as tune
from clip_retrieval.indexes import sweep as trials
from clip_retrieval.indexes.choose import Queries
from clip_retrieval.indexes.faiss_index import Index, IndexSpec
from clip_retrieval.indexes.families import Family, families
from clip_retrieval.indexes.sweep import Budget, Outcome, Trial, find_index, front
from clip_retrieval.progress import Silent
from tests.indexes.test_choose import CAPTIONS, IMAGES, judged_recall

SPEC = IndexSpec(rows=9, dim=4, recall_at_10=0.9, p50_ms=1, p99_ms=2, memory_mb=10)
SHORT = [
    Family("flat", "Flat"),
    Family("graph", "HNSW8,SQ8", {"efConstruction": 40}, ({"efSearch": 8}, {"efSearch": 200}), (2,)),
    Family("cells", "IVF16,SQ4", {}, ({"nprobe": 2}, {"nprobe": 16}), (1, 4)),
]


@pytest.fixture(autouse=True)
def few_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "TIMED_QUERIES", 10)
    monkeypatch.setattr(tune, "ROUNDS", 1)


@pytest.fixture(scope="module")
def queries() -> Queries:
    return Queries.draw(IMAGES, CAPTIONS, "captions")


def found(queries: Queries, budget: Budget, scratch: Path, among: list[Family] = SHORT) -> Outcome:
    return find_index(IMAGES, queries, among, budget, scratch, Silent())


def trial(**measured: float) -> Trial:
    return Trial("any", SPEC.model_copy(update=measured), 1.0, Path("any"))


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
        ],
    )
    def test_says_what_is_missed(self, budget: Budget, missed: list[str]) -> None:
        said = budget.misses(SPEC)
        assert len(said) == len(missed)
        assert all(part in line for part, line in zip(missed, said, strict=True))
        assert (budget.excess(SPEC) == 0) == (not missed)

    def test_the_excess_grows_with_each_miss(self) -> None:
        excesses = [
            Budget(*limits).excess(SPEC) for limits in ((0.9, 1, 10), (0.95, 1, 10), (0.95, 1, 2), (0.95, 0.5, 2))
        ]
        assert excesses == sorted(set(excesses))


class TestFront:
    def test_holds_what_nothing_beats(self) -> None:
        quick = trial(recall_at_10=0.8, p50_ms=0.1)
        small = trial(recall_at_10=0.8, p50_ms=0.5, memory_mb=1)
        beaten = trial(recall_at_10=0.8, p50_ms=0.6, memory_mb=2)
        exact = trial(recall_at_10=1.0, p50_ms=5)
        assert front([exact, beaten, quick, small]) == [quick, small, exact]

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
    def test_everything_else_is_beaten_by_one_of_it(self, figures: list[tuple[int, int, int]]) -> None:
        given_trials = [trial(recall_at_10=r / 3, p50_ms=p, memory_mb=m) for r, p, m in figures]
        best = front(given_trials)
        assert best
        for one in given_trials:
            costs = (-(one.spec.recall_at_10 or 0), one.spec.p50_ms or 0, one.spec.memory_mb or 0)
            others = [(-(b.spec.recall_at_10 or 0), b.spec.p50_ms or 0, b.spec.memory_mb or 0) for b in best]
            assert any(all(x <= y for x, y in zip(other, costs, strict=True)) for other in others)


class TestSearch:
    def test_every_setting_is_measured_until_one_finds_everything(self, queries: Queries, tmp_path: Path) -> None:
        outcome = found(queries, Budget(0.5), tmp_path)
        tried = [(t.spec.factory, t.spec.parameters, t.spec.rescored) for t in outcome.trials]
        assert tried[0] == ("Flat", {}, 1)
        assert ("HNSW8,SQ8", {"efConstruction": 40, "efSearch": 8}, 2) in tried
        assert ("IVF16,SQ4", {"nprobe": 16}, 4) in tried
        for each in outcome.trials:
            assert each.spec.query_kind == "captions"
            assert each.spec.queries == len(queries.sweep)
            assert each.loaded_p99_ms > 0

    def test_recall_and_memory_are_what_they_are_said_to_be(self, queries: Queries, tmp_path: Path) -> None:
        for each in found(queries, Budget(0.5), tmp_path).trials:
            index = Index.load(each.spec, each.file, IMAGES)
            assert each.spec.recall_at_10 == pytest.approx(judged_recall(index, IMAGES, queries.sweep), abs=1e-3)
            held = IMAGES.nbytes if each.spec.exact else each.file.stat().st_size
            assert each.spec.memory_mb == held / 1e6

    def test_the_fastest_within_the_budget_is_chosen_and_confirmed(self, queries: Queries, tmp_path: Path) -> None:
        budget = Budget(0.9, None, 0.2)
        outcome = found(queries, budget, tmp_path)
        assert outcome.chosen is not None
        assert outcome.confirmed is not None
        refused = [t.spec for t, _ in outcome.refused]
        within = [t.spec for t in outcome.trials if not budget.misses(t.spec) and t.spec not in refused]
        assert outcome.chosen.spec.p50_ms == min(spec.p50_ms or 0 for spec in within)
        assert not outcome.chosen.spec.exact, "a flat index holds the vectors, which are too large"
        assert outcome.confirmed.spec.recall_at_10 == pytest.approx(
            judged_recall(outcome.confirmed, IMAGES, queries.held_out), abs=1e-3
        )
        assert outcome.confirmed.spec.queries == len(queries.held_out)

    def test_where_nothing_meets_the_budget_the_nearest_is_told(self, queries: Queries, tmp_path: Path) -> None:
        outcome = found(queries, Budget(0.99, None, 0.001), tmp_path)
        assert outcome.chosen is None
        assert outcome.confirmed is None
        assert outcome.nearest in outcome.trials
        excess = Budget(0.99, None, 0.001).excess
        assert excess(outcome.nearest.spec) == min(excess(t.spec) for t in outcome.trials) > 0

    def test_what_held_out_queries_do_not_confirm_is_refused(
        self, queries: Queries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forgetful(index: Index, queries: Queries) -> Index:
            index.spec = index.spec.model_copy(update={"recall_at_10": 1.0 if index.spec.exact else 0.1})
            return index

        monkeypatch.setattr(trials, "confirmed", forgetful)
        outcome = found(queries, Budget(0.5), tmp_path)
        assert outcome.chosen is not None
        assert outcome.chosen.spec.exact
        assert all(missed == ["recall@10 0.1000 is below 0.5"] for _, missed in outcome.refused)


class TestFamilies:
    @pytest.mark.parametrize(("rows", "dim"), [(0, 8), (1, 8), (1023, 64), (1024, 7), (1024, 32)])
    def test_faiss_builds_every_one_of_them(self, rows: int, dim: int) -> None:
        vectors = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
        names = [family.name for family in families(rows, dim)]
        assert names[0] == "flat"
        assert len(set(names)) == len(names)
        for family in families(rows, dim):
            index = tune.build_family(family, vectors)
            if not index.spec.exact:
                for setting in family.settings:
                    index.with_search(setting, family.rescored[0])

    @pytest.mark.parametrize(
        ("rows", "cells"), [(2000, 32), (10_000, 256), (100_000, 2048), (1_000_000, 4096), (10_000_000, 4096)]
    )
    def test_cells_grow_with_the_root_of_the_rows(self, rows: int, cells: int) -> None:
        assert f"IVF{cells}" in next(f.factory for f in families(rows, 512) if f.name == "IVF").replace("_", ",").split(
            ","
        )
