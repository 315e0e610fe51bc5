"""The full sweep to a budget: every family of index at several settings, and the fastest that the budget allows.

Memory is what an index really holds: the bytes of its own file, which is mapped when it is served, and for a flat
index the vectors. The file of vectors, from which other indexes score what they found, is mapped as well and not
counted: the kernel may drop its pages.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.choose import ENOUGH, K, Queries, build_family, confirmed, fastest_first, single_ms, sweep
from clip_retrieval.indexes.faiss_index import Index, IndexSpec
from clip_retrieval.indexes.families import Family
from clip_retrieval.progress import Progress


@dataclass(frozen=True)
class Budget:
    """What an index may cost. None is no limit."""

    recall: float = 0.99
    p99_ms: float | None = None
    memory_mb: float | None = None

    def misses(self, spec: IndexSpec) -> list[str]:
        """What of the budget a measured ``spec`` does not meet, in words; empty if it meets all of it."""
        found = []
        if _number(spec.recall_at_10) < self.recall:
            found.append(f"recall@10 {spec.recall_at_10:.4f} is below {self.recall:g}")
        if self.p99_ms is not None and _number(spec.p99_ms) > self.p99_ms:
            found.append(f"p99 {spec.p99_ms:.3g} ms is above {self.p99_ms:g} ms")
        if self.memory_mb is not None and _number(spec.memory_mb) > self.memory_mb:
            found.append(f"{spec.memory_mb:.3g} MB is above {self.memory_mb:g} MB")
        return found

    def excess(self, spec: IndexSpec) -> float:
        """How far a measured ``spec`` is from the budget: its excesses as shares of what is allowed, added up."""
        lost = max(0.0, self.recall - _number(spec.recall_at_10)) / max(1 - self.recall, 1e-3)
        slow = max(0.0, _number(spec.p99_ms) / self.p99_ms - 1) if self.p99_ms else 0.0
        large = max(0.0, _number(spec.memory_mb) / self.memory_mb - 1) if self.memory_mb else 0.0
        return lost + slow + large


@dataclass(frozen=True)
class Trial:
    """One setting of one family as the sweep's queries saw it."""

    family: str
    spec: IndexSpec
    loaded_p99_ms: float
    """``p99_ms`` while another thread searches the same index without a pause."""
    file: Path
    """The index as it was saved; no file for a flat one."""


@dataclass(frozen=True)
class Outcome:
    """What a sweep found. ``chosen`` is None if nothing met the budget; ``nearest`` is then what came closest."""

    trials: list[Trial]
    nearest: Trial
    chosen: Trial | None
    confirmed: Index | None
    """The chosen index; its spec holds what the held-out queries saw."""
    refused: list[tuple[Trial, list[str]]]
    """Faster ones that met the budget in the sweep and not with the held-out queries, and what they missed."""


def find_index(
    vectors: Vectors, queries: Queries, families: list[Family], budget: Budget, scratch: Path, progress: Progress
) -> Outcome:
    """Try every family and choose the fastest that meets the budget, twice: in the sweep and on held-out queries."""
    trials: list[Trial] = []
    for number, family in enumerate(families):
        trials += _try_family(family, vectors, queries, scratch / f"{number}.faiss", progress)
    nearest = min(trials, key=lambda trial: (budget.excess(trial.spec), trial.spec.p50_ms))
    meeting = {id(trial.spec): trial for trial in trials if not budget.misses(trial.spec)}
    refused: list[tuple[Trial, list[str]]] = []
    for spec in fastest_first(trial.spec for trial in meeting.values()):
        trial = meeting[id(spec)]
        index = confirmed(Index.load(spec, trial.file, vectors), queries)
        if not (missed := budget.misses(index.spec)):
            return Outcome(trials, nearest, trial, index, refused)
        refused.append((trial, missed))
    return Outcome(trials, nearest, None, None, refused)


def front(trials: list[Trial]) -> list[Trial]:
    """Those that no other equals or beats in recall, p50 and memory at once, from the least recall to the most."""

    def costs(trial: Trial) -> tuple[float, float, float]:
        spec = trial.spec
        return (-_number(spec.recall_at_10), _number(spec.p50_ms), _number(spec.memory_mb))

    def beaten(one: Trial, other: Trial) -> bool:
        pairs = list(zip(costs(one), costs(other), strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    kept = [trial for trial in trials if not any(beaten(trial, other) for other in trials)]
    return sorted(kept, key=lambda trial: _number(trial.spec.recall_at_10))


def _try_family(family: Family, vectors: Vectors, queries: Queries, file: Path, progress: Progress) -> Iterator[Trial]:
    with progress.stage(f"building {family.name}", len(vectors)) as advance:
        index = build_family(family, vectors, advance=advance)
        index.save(file)
    held = vectors.nbytes if index.spec.exact else file.stat().st_size
    index = Index.load(index.spec.model_copy(update={"memory_mb": held / 1e6}), file, vectors)
    with progress.stage(f"searching {family.name}", None) as advance:
        for spec in sweep(index, family, queries, ENOUGH):
            with _another_searching(index, queries.sweep):
                _, loaded = single_ms(index, queries.sweep)
            yield Trial(family.name, spec, loaded, file)
            advance(1)


@contextmanager
def _another_searching(index: Index, queries: Vectors) -> Iterator[None]:
    """Have another thread search the index, as it is set at the time, without a pause."""
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            for query in queries:
                index.search(query[None], K)
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
    """A figure of a spec that was measured."""
    assert value is not None, "measured"
    return value
