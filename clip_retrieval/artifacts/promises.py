"""Whether an artifact keeps what its manifest promises, measured on the machine that is about to serve it.

The manifest holds the recall and the times of each index, measured when it was built. The same kind of queries is asked
again: vectors of the artifact's own captions and images, judged by exact search. A time depends on the machine and on
what else it does. So it is time of the processor, which leaves out what other threads take, and it is compared with
that of the artifact which is served now, measured in turn: if that one is three times slower than its own manifest
says, because others empty the caches, so may the new one be.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ArtifactNotFound, ClipRetrievalError
from clip_retrieval.indexes.base import Measurement, VectorIndex
from clip_retrieval.indexes.choose import TuningQueries
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.indexes.measure import Meter, SearchTimes, recall_at_k
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.records import MODALITIES, Modality

QUERIES = 200
"""Queries for each index. Exact search for so many takes a second at a million rows."""
RECALL_TOLERANCE = 0.02
"""How much a recall may be below the promised one: three standard errors of a recall@1 of 0.99 over 200 queries."""
TIME_FACTOR = 3.0
"""How many times the promised p99 an index may take, on a machine as fast as that of the promise."""
LEAST_P99_MS = 1.0
"""A p99 up to this one is good enough on such a machine, whatever was promised."""
ROUNDS, MOST_ROUNDS = 3, 10
"""How often each index is timed, and how often at most until it is quick enough. The best round counts: other work only
ever adds time."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was promised of one index, and what was measured now. Recalls are the least over ``RECALL_KS``."""

    modality: Modality
    promised_recall: float
    recall: float
    promised_p99_ms: float
    p99_ms: float
    allowed_p99_ms: float

    @property
    def shortfalls(self) -> list[str]:
        """A sentence for each promise that is not kept."""
        found = []
        if self.recall < self.promised_recall - RECALL_TOLERANCE:
            found.append(
                f"the recall of the {self.modality} is {self.recall:.4f}, its manifest promises "
                f"{self.promised_recall:.4f}"
            )
        if self.p99_ms > self.allowed_p99_ms:
            found.append(
                f"a search for {self.modality} takes {self.p99_ms:.2f} ms at p99, its manifest promises "
                f"{self.promised_p99_ms:.2f} ms, and more than {self.allowed_p99_ms:.2f} ms are too much here and now"
            )
        return found


def check_promises(artifact: Artifact, served: Artifact | None = None) -> list[Kept]:
    """Measure each index of ``artifact`` whose manifest promises something, in turn with those of ``served``.

    An artifact of an older release, or one without captions, may promise nothing of an index; one without vectors
    cannot be measured: Milvus must have its collections. Raises IndexAway.
    """
    if not artifact.has_vectors:
        for modality in MODALITIES:
            if isinstance(index := artifact.index(modality), MilvusIndex):
                index.probe()
    return [kept for modality in MODALITIES if (kept := _check(artifact, served, modality)) is not None]


def _check(artifact: Artifact, served: Artifact | None, modality: Modality) -> Kept | None:
    asked = _Asked.of(artifact, modality)
    if asked is None:
        return None
    reference = None if served is None else _Asked.of(served, modality)
    times: list[SearchTimes] = []
    reference_times: list[SearchTimes] = []
    p99_ms = allowed_ms = 0.0
    while len(times) < ROUNDS or (p99_ms > allowed_ms and len(times) < MOST_ROUNDS):
        times.append(asked.times())
        p99_ms, slowness = _best_p99(times), 1.0
        if reference is not None:
            reference_times.append(reference.times())
            slowness = max(1.0, _best_p99(reference_times) / reference.promised_p99_ms)
        allowed_ms = round(max(LEAST_P99_MS, TIME_FACTOR * asked.promised_p99_ms) * slowness, 4)
    return Kept(
        modality,
        promised_recall=asked.promised_recall,
        recall=asked.recall(),
        promised_p99_ms=asked.promised_p99_ms,
        p99_ms=p99_ms,
        allowed_p99_ms=allowed_ms,
    )


class _ProcessorMeter(Meter):
    """Leaves out what other threads and processes take."""

    def clock_s(self) -> float:
        return time.thread_time()


@dataclass(frozen=True)
class _Asked:
    """An index with queries of the kind that it was measured with, and what was promised then."""

    index: VectorIndex
    queries: TuningQueries
    ks: Sequence[int]
    promised_recall: float
    promised_p99_ms: float

    @classmethod
    def of(cls, artifact: Artifact, modality: Modality) -> "_Asked | None":
        manifest = artifact.manifest
        promised: Measurement = (manifest.images if modality == "images" else manifest.captions).measured
        recall, p99_ms, kind = promised.recall, promised.p99_ms, promised.query_kind
        if recall is None or not p99_ms or kind is None or not artifact.has_vectors:
            return None  # without vectors nothing can judge
        queries = TuningQueries.draw(artifact.vectors(modality), artifact.vectors(kind), kind, max_queries=QUERIES)
        return cls(artifact.index(modality), queries, tuple(promised.recalls), recall, p99_ms)

    def times(self) -> SearchTimes:
        return _ProcessorMeter(rounds=1).times(self.index, self.queries.held_out)

    def recall(self) -> float:
        truth = self.queries.held_out_truth
        found = self.index.search(self.queries.held_out, truth.shape[1]).rows
        return min(recall_at_k(found[:, :k], truth[:, :k]) for k in self.ks)


def _best_p99(rounds: Sequence[SearchTimes]) -> float:
    return round(min(times.p99_ms for times in rounds), 4)


def _open_if_there(folder: Path) -> Artifact | None:
    """The artifact that is served; None if its folder was deleted since, which is no fault of the next one."""
    try:
        return Artifact.open(folder, verify=False)
    except ArtifactNotFound:
        return None


def main(arguments: Sequence[str]) -> None:
    """Verify the artifact in the folder of the first argument, and measure it beside the second, if there is one.

    A process of its own, so that no search of a server waits for the measurement's share of the GIL. The last line of
    standard output is JSON: ``{"kept": [...], "error": null}``, or the sentence that says why it cannot be used.
    """
    search_on_one_thread()
    try:
        artifact = Artifact.open_checked(Path(arguments[0]))
        served = _open_if_there(Path(arguments[1])) if len(arguments) > 1 else None
        kept, error = check_promises(artifact, served), None
    except ClipRetrievalError as refused:
        kept, error = [], str(refused)
    sys.stdout.write(json.dumps({"kept": [asdict(one) for one in kept], "error": error}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
