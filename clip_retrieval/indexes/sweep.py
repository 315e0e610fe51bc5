"""The full sweep to a budget: every family of index at several settings, and the fastest that the budget allows.

Memory is what an index really holds: the bytes of its own file, which is mapped when it is served, and for an exact
index the vectors. The file of vectors, which orders the candidates of other indexes, is mapped as well and not counted:
the kernel may drop its pages. A search that needs a page that was dropped waits for the disk. So what has to be
resident is counted too: the index, and the vectors unless its own codes give the scores.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import IndexSpec, Measurement, VectorIndex
from clip_retrieval.indexes.choose import Candidate, TuningQueries, build_family, confirmed, sweep
from clip_retrieval.indexes.faiss_index import FaissIndex, search_on_one_thread
from clip_retrieval.indexes.families import Family
from clip_retrieval.indexes.measure import DEFAULT_METER, LEAST_RECALL, TIMED_K, Meter
from clip_retrieval.progress import Progress


@dataclass(frozen=True)
class Budget:
    """What an index may cost. None is no limit."""

    recall: float = LEAST_RECALL
    """Least recall at every k of ``RECALL_KS``."""
    p99_ms: float | None = None
    memory_mb: float | None = None
    resident_mb: float | None = None

    def misses(self, seen: Measurement) -> list[str]:
        """What of the budget is not met, in words; empty if all of it is met."""
        missed = []
        if _number(seen.recall) < self.recall:
            missed.append(f"recall@{seen.weakest_k} {seen.recall:.4f} is below {self.recall:g}")
        if self.p99_ms is not None and _number(seen.p99_ms) > self.p99_ms:
            missed.append(f"p99 {seen.p99_ms:.3g} ms is above {self.p99_ms:g} ms")
        if self.memory_mb is not None and _number(seen.memory_mb) > self.memory_mb:
            missed.append(f"{seen.memory_mb:.3g} MB is above {self.memory_mb:g} MB")
        if self.resident_mb is not None and _number(seen.resident_mb) > self.resident_mb:
            missed.append(f"{seen.resident_mb:.3g} MB with all that is read is above {self.resident_mb:g} MB")
        return missed

    def excess(self, seen: Measurement) -> float:
        """How far a measurement is from the budget: its excesses as shares of what is allowed, added up."""
        lost = max(0.0, self.recall - _number(seen.recall)) / max(1 - self.recall, 1e-3)
        slow = max(0.0, _number(seen.p99_ms) / self.p99_ms - 1) if self.p99_ms else 0.0
        large = max(0.0, _number(seen.memory_mb) / self.memory_mb - 1) if self.memory_mb else 0.0
        heavy = max(0.0, _number(seen.resident_mb) / self.resident_mb - 1) if self.resident_mb else 0.0
        return lost + slow + large + heavy


@dataclass(frozen=True)
class Trial:
    """One setting of one family as the sweep's queries saw it."""

    family: str
    spec: IndexSpec
    measured: Measurement
    loaded_p99_ms: float
    """``p99_ms`` while another thread searches the same index without a pause."""
    file: Path
    """The index as it was saved; an exact index has no file."""


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep found. ``chosen`` is None if nothing met the budget; ``nearest`` is what came closest to it."""

    trials: list[Trial]
    nearest: Trial
    chosen: Trial | None
    confirmed: Candidate | None
    """The chosen index with what the held-out queries saw."""
    refused: list[tuple[Trial, list[str]]]
    """Faster trials that met the budget in the sweep but not with the held-out queries, and what they missed."""


def find_index(
    vectors: Vectors,
    queries: TuningQueries,
    families: list[Family],
    budget: Budget,
    scratch: Path,
    progress: Progress,
    *,
    meter: Meter = DEFAULT_METER,
) -> SweepOutcome:
    """Try every family and choose the fastest index that meets the budget twice: in the sweep and on held-out queries.

    The folder ``scratch`` gets the files of the indexes.
    """
    trials: list[Trial] = []
    for number, family in enumerate(families):
        trials += _try_family(family, vectors, queries, scratch / f"{number}.faiss", progress, meter)
    nearest = min(trials, key=lambda trial: (budget.excess(trial.measured), trial.measured.p50_ms))
    meeting = [trial for trial in trials if not budget.misses(trial.measured)]
    refused: list[tuple[Trial, list[str]]] = []
    for trial in sorted(meeting, key=lambda trial: _number(trial.measured.p50_ms)):
        index = FaissIndex.load(trial.spec, trial.file, vectors)
        candidate = confirmed(Candidate(index, trial.measured), queries, meter)
        if not (missed := budget.misses(candidate.measurement)):
            return SweepOutcome(trials, nearest, trial, candidate, refused)
        refused.append((trial, missed))
    return SweepOutcome(trials, nearest, None, None, refused)


def pareto_front(trials: list[Trial]) -> list[Trial]:
    """Trials that no other equals or beats in recall, p50 and memory at once, from the least recall to the most."""

    def costs(trial: Trial) -> tuple[float, float, float]:
        seen = trial.measured
        return (-_number(seen.recall), _number(seen.p50_ms), _number(seen.memory_mb))

    def beaten(trial: Trial, other: Trial) -> bool:
        pairs = list(zip(costs(trial), costs(other), strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    kept = [trial for trial in trials if not any(beaten(trial, other) for other in trials)]
    return sorted(kept, key=lambda trial: _number(trial.measured.recall))


def _try_family(
    family: Family, vectors: Vectors, queries: TuningQueries, file: Path, progress: Progress, meter: Meter
) -> Iterator[Trial]:
    with progress.stage(f"building {family.name}", len(vectors)) as advance:
        candidate = build_family(family, vectors, advance=advance)
        candidate.index.save(file)
    spec = candidate.index.spec
    held = vectors.nbytes if spec.exact else file.stat().st_size
    read = 0 if spec.exact or spec.scores == "codes" else vectors.nbytes
    mapped = replace(
        candidate,
        index=FaissIndex.load(spec, file, vectors),
        measurement=candidate.measurement.model_copy(
            update={"memory_mb": held / 1e6, "resident_mb": (held + read) / 1e6}
        ),
    )
    with progress.stage(f"searching {family.name}", None) as advance:
        for tried in sweep(mapped, family, queries, meter=meter):
            with _another_searching(tried.index, queries.sweep):
                loaded = meter.times(tried.index, queries.sweep)
            yield Trial(family.name, tried.index.spec, tried.measurement, loaded.p99_ms, file)
            advance(1)


@contextmanager
def _another_searching(index: VectorIndex, queries: Vectors) -> Iterator[None]:
    """Have another thread search the index without a pause."""
    stop = threading.Event()

    def search() -> None:
        search_on_one_thread()
        while not stop.is_set():
            for query in queries:
                index.search(query[None], TIMED_K)
                if stop.is_set():
                    return

    other = threading.Thread(target=search)
    other.start()
    try:
        yield
    finally:
        stop.set()
        other.join()


def _number(value: float | None) -> float:
    """A figure of a trial, which was measured."""
    assert value is not None, "measured"
    return value
