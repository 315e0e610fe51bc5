"""Every family that a sweep tries keeps its promise on every k and gives the same rows by every way."""

from collections.abc import Iterator

import numpy as np
import pytest

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.choose import Candidate, TuningQueries, build_family, confirmed
from clip_retrieval.indexes.families import CODES_IN_CELLS, families, quick_families
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.search.ranking import Ranking, cut_page

PAGE_KS = (1, 5, 10, 20, 50)
LONGEST = max(PAGE_KS)
QUICK = Meter(timed_queries=1, rounds=1, warm_up=0)


def hard(rows: int, dim: int, seed: int) -> Vectors:
    """Unit vectors around 50 centres with much noise: no axis is idle, and neighbours are nearly as far as others."""
    rng = np.random.default_rng(seed)
    centres = unit_rows(np.random.default_rng(99).standard_normal((50, dim)))
    return unit_rows(centres[rng.integers(50, size=rows)] + 1.5 * rng.standard_normal((rows, dim)) / np.sqrt(dim))


def candidates(name: str, vectors: Vectors) -> Iterator[Candidate]:
    """A family at its quickest, a middle and its most thorough setting."""
    family = next(family for family in families(*vectors.shape, in_memory=True) if family.name == name)
    built = build_family(family, vectors)
    if built.index.spec.exact:
        yield built
        return
    middle = family.settings[len(family.settings) // 2]
    ways = (family.settings[0], family.depths[0]), (middle, family.depths[0]), (family.settings[-1], family.depths[-1])
    for setting, depth in ways:
        yield Candidate(built.index.with_search(setting, depth), built.measurement)


def assert_keeps_its_promise(name: str, vectors: Vectors, queries: Vectors) -> None:
    drawn = TuningQueries.draw(vectors, queries, "captions")
    truth = np.argsort(-(drawn.held_out @ vectors.T), axis=1, kind="stable")[:, :LONGEST]
    for candidate in candidates(name, vectors):
        index, promised = candidate.index, confirmed(candidate, drawn, QUICK).measurement.recall or 0
        for k in PAGE_KS:
            rows = index.search(drawn.held_out, k).rows
            pairs = zip(rows.tolist(), truth[:, :k].tolist(), strict=True)
            recall = np.mean([len(set(found) & set(true)) / k for found, true in pairs])
            assert recall >= promised - 0.01, f"{index.spec.label()}, k = {k}"
        some = drawn.held_out[:30]
        whole = index.search(some, LONGEST).rows
        for k in range(1, LONGEST + 1):
            np.testing.assert_array_equal(index.search(some, k).rows, whole[:, :k], f"{index.spec.label()}, k = {k}")
        for query in drawn.held_out[:20]:
            for k in PAGE_KS:
                rows = index.search(query[None], k).rows[0]
                assert cut_page(Ranking(index, query), k).rows == rows[rows >= 0].tolist(), f"k = {k}"


NAMES = [family.name for family in families(8192, 64, in_memory=True)]


@pytest.mark.parametrize("name", NAMES)
def test_results_are_prefixes_of_one_list_with_the_promised_recall_at_every_k(name: str) -> None:
    assert_keeps_its_promise(name, hard(1500, 64, seed=1), hard(200, 64, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_holds_for_a_larger_collection(name: str) -> None:
    assert_keeps_its_promise(name, hard(8192, 128, seed=1), hard(2000, 128, seed=2))


@pytest.mark.parametrize(("rows", "cells"), [(100_000, 512), (250_000, 1024), (500_000, 1024), (1_000_000, 4096)])
def test_the_short_list_has_few_cells_where_that_was_measured(rows: int, cells: int) -> None:
    [factory] = [family.factory for family in quick_families(rows, 512) if family.name == CODES_IN_CELLS]
    assert f",IVF{cells}" in factory
    assert ("_HNSW" in factory) == (cells >= 2048)
