"""Every family that a sweep tries keeps its promise on every k and gives the same rows by every way."""

from collections.abc import Iterator

import numpy as np
import pytest

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.base import VectorIndex
from clip_retrieval.indexes.choose import TuningQueries, build_family, confirmed, sweep
from clip_retrieval.indexes.families import families
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


def settings_of(name: str, vectors: Vectors, drawn: TuningQueries) -> Iterator[tuple[VectorIndex, float]]:
    """A family's quickest and most thorough settings, each with the recall that the held-out queries promise."""
    family = next(family for family in families(*vectors.shape) if family.name == name)
    tried = list(sweep(build_family(family, vectors), family, drawn, meter=QUICK))
    for candidate in (tried[0], tried[-1]):
        yield candidate.index, confirmed(candidate, drawn, QUICK).measurement.recall or 0


def assert_keeps_its_promise(name: str, vectors: Vectors, queries: Vectors) -> None:
    drawn = TuningQueries.draw(vectors, queries, "captions")
    truth = np.argsort(-(drawn.held_out @ vectors.T), axis=1, kind="stable")[:, :LONGEST]
    for index, promised in settings_of(name, vectors, drawn):
        whole = index.search(drawn.held_out, LONGEST).rows
        for k in range(1, LONGEST + 1):
            rows = index.search(drawn.held_out, k).rows
            np.testing.assert_array_equal(rows, whole[:, :k], err_msg=f"{index.spec.label()}, k = {k}")
            if k in PAGE_KS:
                pairs = zip(rows.tolist(), truth[:, :k].tolist(), strict=True)
                recall = np.mean([len(set(found) & set(true)) / k for found, true in pairs])
                assert recall >= promised - 0.01, f"{index.spec.label()}, k = {k}"
        for query in drawn.held_out[:20]:
            for k in PAGE_KS:
                rows = index.search(query[None], k).rows[0]
                assert cut_page(Ranking(index, query), k).rows == rows[rows >= 0].tolist(), f"k = {k}"


NAMES = [family.name for family in families(8192, 64)]


@pytest.mark.parametrize("name", NAMES)
def test_results_are_prefixes_of_one_list_with_the_promised_recall_at_every_k(name: str) -> None:
    assert_keeps_its_promise(name, hard(1500, 64, seed=1), hard(200, 64, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_holds_for_a_larger_collection(name: str) -> None:
    assert_keeps_its_promise(name, hard(8192, 128, seed=1), hard(2000, 128, seed=2))
