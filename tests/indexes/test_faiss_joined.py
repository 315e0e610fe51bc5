"""Several indexes searched in one call of FAISS: what each of them finds by itself is the judge."""

from typing import Any

import numpy as np
import pytest

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.indexes.base import FLAT, IndexSpec, SearchHits
from clip_retrieval.indexes.faiss_index import FaissIndex, best_hits, merged_hits
from clip_retrieval.indexes.faiss_joined import JoinedIndexes
from clip_retrieval.live.live_index import LiveIndex

DIM, DEPTH = 32, 64
ROTATED = f"HR{DIM}"
KINDS: dict[str, dict[str, Any]] = {
    "flat": {"factory": FLAT},
    "scan": {"factory": f"{ROTATED},PQ{DIM // 2}x4fs"},
    "deeper scan": {"factory": f"{ROTATED},PQ{DIM // 4}x4fs", "depth": 3 * DEPTH},
    "cells": {"factory": f"{ROTATED},IVF16,PQ{DIM // 2}x4fsr", "search_parameters": {"nprobe": 5}},
    "RaBitQ": {"factory": f"{ROTATED},IVF16,RaBitQfs", "search_parameters": {"nprobe": 7}, "depth": 2 * DEPTH},
    "cells behind a graph": {
        "factory": "IVF64_HNSW8,SQ8",
        "search_parameters": {"nprobe": 9, "quantizer_efSearch": 40},
    },
    "graph": {"factory": "HNSW16,SQ8", "search_parameters": {"efSearch": 100}},
}


def random_units(rows: int, seed: int) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM)))


def index_of(kind: str, rows: int, seed: int) -> FaissIndex:
    spec = IndexSpec(rows=rows, dim=DIM, **{"depth": DEPTH, **KINDS[kind]})
    return FaissIndex.build(spec, random_units(rows, seed))


def together(parts: list[FaissIndex], queries: Vectors) -> SearchHits:
    return best_hits(*JoinedIndexes(parts, DEPTH).search(queries, DEPTH), DEPTH)  # equal scores in order


def one_by_one(parts: list[FaissIndex], queries: Vectors) -> SearchHits:
    found, start = [], 0
    for part in parts:
        hits = part.search(queries, DEPTH)
        found.append(SearchHits(hits.scores, np.where(hits.rows < 0, -1, hits.rows + start)))
        start += part.spec.rows
    scores, rows = (np.concatenate(lists, axis=1) for lists in zip(*found, strict=True))
    return merged_hits(scores, rows, DEPTH)


def assert_same(found: SearchHits, expected: SearchHits) -> None:
    assert np.array_equal(found.rows, expected.rows)
    assert np.allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_find_together_what_they_find_alone(kind: str) -> None:
    parts = [index_of(kind, 2000, 1), index_of("scan", 1200, 2), index_of("flat", 50, 3)]
    queries = random_units(40, 9)
    assert_same(together(parts, queries), one_by_one(parts, queries))


def test_parts_that_score_by_their_codes_give_these_scores() -> None:
    spec = IndexSpec(
        factory=f"{ROTATED},PQ{DIM // 4}x4fs,Refine({ROTATED},SQ8)",
        search_parameters={"k_factor_rf": 3},
        depth=DEPTH,
        scores="codes",
        rows=2000,
        dim=DIM,
    )
    parts = [FaissIndex.build(spec, random_units(2000, 1)), index_of("flat", 50, 3)]
    queries = random_units(40, 9)
    assert_same(together(parts, queries), one_by_one(parts, queries))


def test_parts_of_a_few_rows_or_none_are_parts_as_well() -> None:
    parts = [index_of("flat", rows, rows) for rows in (0, 3, 0, 5)]
    queries = random_units(2, 9)
    found = JoinedIndexes(parts, DEPTH).search(queries, 20)
    assert np.array_equal(found.rows[:, :8], one_by_one(parts, queries).rows)
    assert (found.rows[:, 8:] == -1).all()
    assert (found.scores[:, 8:] < -1).all()


def test_searches_of_a_part_by_itself_keep_their_parameters() -> None:
    part = index_of("cells", 2000, 1)
    broad = part.with_search({"nprobe": 16}, DEPTH)
    queries = random_units(40, 9)
    before = part.search(queries, 10), broad.search(queries, 10)
    JoinedIndexes([broad, index_of("flat", 50, 3)], DEPTH)
    assert np.array_equal(part.search(queries, 10).rows, before[0].rows)
    assert np.array_equal(broad.search(queries, 10).rows, before[1].rows)
    assert not np.array_equal(before[0].rows, before[1].rows), "the breadth shows"


def test_what_faiss_does_not_search_is_not_joined() -> None:
    part = index_of("flat", 50, 3)
    assert JoinedIndexes.of([part, part], DEPTH) is not None
    assert JoinedIndexes.of([part, LiveIndex([part], None)], DEPTH) is None
