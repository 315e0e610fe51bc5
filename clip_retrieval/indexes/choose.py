"""Choosing an index by measuring, judged by exact search.

The queries are those that the index will meet: caption vectors against image rows, and the reverse. Vectors drawn from
the index itself would be easier and flatter it. One half of the queries is for the sweep over settings. The other half,
which the sweep has not seen, confirms the choice. Which kinds of index are tried is in ``families.py``; the full sweep
to a budget is in ``sweep.py``.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec, Measurement
from clip_retrieval.indexes.faiss_index import FaissIndex, exact_search
from clip_retrieval.indexes.families import MAX_SCANNED_ROWS, Family, quick_families
from clip_retrieval.indexes.measure import DEFAULT_METER, LEAST_RECALL, MAX_QUERIES, RECALL_KS, TRUTH_DEPTH, Meter
from clip_retrieval.records import Modality

ALWAYS_FLAT_ROWS = 4096
"""Up to this many rows a flat search takes under 0.2 ms at 512 dimensions, and no graph is faster."""
ENOUGH_RECALL = 0.9995
"""From this recall on, a broader search of the same index is not tried."""


@dataclass(frozen=True)
class Candidate:
    """A built index and what was measured of it."""

    index: FaissIndex
    measurement: Measurement

    @property
    def built(self) -> BuiltIndex:
        """As a manifest describes it."""
        return BuiltIndex(spec=self.index.spec, measured=self.measurement)


@dataclass(frozen=True)
class TuningQueries:
    """Query vectors of one modality with the rows that exact search finds for them, in two halves."""

    kind: Modality
    sweep: Vectors
    sweep_truth: NDArray[np.int64]
    held_out: Vectors
    held_out_truth: NDArray[np.int64]

    @classmethod
    def draw(
        cls, vectors: Vectors, queries: Vectors, kind: Modality, seed: int = 0, *, max_queries: int = MAX_QUERIES
    ) -> Self:
        """Two halves of at most ``max_queries`` each, drawn with ``seed``, and their true rows in ``vectors``."""
        picked = np.random.default_rng(seed).permutation(len(queries))[: 2 * max_queries]
        sample: Vectors = np.ascontiguousarray(queries[np.sort(picked)])
        truth = exact_search(vectors, sample, TRUTH_DEPTH).rows
        half = (len(sample) + 1) // 2
        mixed = np.random.default_rng((seed, 1)).permutation(len(sample))
        first, second = mixed[:half], mixed[half:] if len(sample) > 1 else mixed
        return cls(kind, sample[first], truth[first], sample[second], truth[second])


def choose_index(
    vectors: Vectors,
    queries: Vectors,
    *,
    query_kind: Modality,
    recall: float = LEAST_RECALL,
    seed: int = 0,
    meter: Meter = DEFAULT_METER,
    max_queries: int = MAX_QUERIES,
    always_flat_rows: int = ALWAYS_FLAT_ROWS,
    max_scanned_rows: int = MAX_SCANNED_ROWS,
) -> Candidate:
    """Build the fastest of a short list over ``vectors`` whose recall at every measured k is at least ``recall``.

    Both arrays are unit float32, of shapes (rows, dim) and (n, dim). Up to ``always_flat_rows`` rows the index is flat.
    The measurement is that of queries which the sweep has not seen; without rows or queries nothing is measured but the
    memory.
    """
    rows, dim = vectors.shape
    index = FaissIndex.build(IndexSpec(rows=rows, dim=dim), vectors)
    flat = Candidate(index, Measurement(memory_mb=vectors.nbytes / 1e6))
    if not rows or not len(queries):
        return flat
    drawn = TuningQueries.draw(vectors, queries, query_kind, seed, max_queries=max_queries)
    flat = confirmed(flat, drawn, meter)
    if rows <= always_flat_rows:
        return flat
    for family in quick_families(rows, dim, max_scanned_rows=max_scanned_rows):
        swept = sweep(build_family(family, vectors), family, drawn, until=(1 + recall) / 2, meter=meter)
        good = [candidate for candidate in swept if (candidate.measurement.recall or 0) >= recall]
        for candidate in fastest_first(good):
            last = confirmed(candidate, drawn, meter)
            faster = (last.measurement.p50_ms or 0) < (flat.measurement.p50_ms or 0)
            if faster and (last.measurement.recall or 0) >= recall:
                return last
    return flat


def build_family(family: Family, vectors: Vectors, *, advance: Callable[[int], None] = lambda _: None) -> Candidate:
    """Build the index of ``family``; of the measurement only the time that this took is known."""
    rows, dim = vectors.shape
    start = time.perf_counter()
    spec = IndexSpec(factory=family.factory, build_parameters=family.build, scores=family.scores, rows=rows, dim=dim)
    index = FaissIndex.build(spec, vectors, advance=advance)
    return Candidate(index, Measurement(build_s=round(time.perf_counter() - start, 3)))


def sweep(
    candidate: Candidate,
    family: Family,
    queries: TuningQueries,
    *,
    until: float = ENOUGH_RECALL,
    meter: Meter = DEFAULT_METER,
) -> Iterator[Candidate]:
    """Measure the settings of a built family on the sweep's queries, from the quickest to the most thorough.

    For each depth, settings beyond the first whose recall reaches ``until`` are left out.
    """
    for depth in family.depths:
        for setting in family.settings:
            index = candidate.index if candidate.index.spec.exact else candidate.index.with_search(setting, depth)
            tried = Candidate(index, candidate.measurement)
            measured = _measured(tried, queries.sweep, queries.sweep_truth, queries.kind, meter)
            yield measured
            if (measured.measurement.recall or 0) >= until:
                break


def fastest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """By their median time."""
    return sorted(candidates, key=lambda candidate: candidate.measurement.p50_ms or 0)


def confirmed(candidate: Candidate, queries: TuningQueries, meter: Meter = DEFAULT_METER) -> Candidate:
    """The same index with what is measured on the queries that the sweep has not seen."""
    return _measured(candidate, queries.held_out, queries.held_out_truth, queries.kind, meter)


def _measured(
    candidate: Candidate, queries: Vectors, truth: NDArray[np.int64], kind: Modality, meter: Meter
) -> Candidate:
    kept = candidate.measurement
    seen = meter.measure(candidate.index, queries, truth, kind)
    costs = {"build_s": kept.build_s, "memory_mb": kept.memory_mb, "resident_mb": kept.resident_mb}
    # An exact index has recall 1 by construction; only rounding between two rows that are equally near could differ.
    recalls = {"recalls": dict.fromkeys(RECALL_KS, 1.0)} if candidate.index.spec.exact else {}
    return Candidate(candidate.index, seen.model_copy(update={**costs, **recalls}))
