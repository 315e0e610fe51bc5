"""One process of the scale benchmark, so that memory and start time are its own: builds an index, or searches one.

    python -m scripts.bench.scale_child build  FOLDER FAMILY INDEX
    python -m scripts.bench.scale_child search FOLDER FAMILY INDEX RECALL
    python -m scripts.bench.scale_child again  FOLDER FAMILY INDEX SPEC

FOLDER holds the vectors, FAMILY is a name of ``clip_retrieval/indexes/families.py``, INDEX the index's file.
``again`` searches by the setting SPEC, which ``search`` has found, in a process whose memory is limited from outside.
Prints one JSON line.
"""

import json
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import IndexSpec, Measurement, VectorIndex
from clip_retrieval.indexes.choose import Candidate, TuningQueries, build_family, confirmed, fastest_first, sweep
from clip_retrieval.indexes.faiss_index import FaissIndex, search_on_one_thread
from clip_retrieval.indexes.families import Family, families
from clip_retrieval.indexes.measure import RECALL_KS, TIMED_K, TRUTH_DEPTH, recall_at_k
from scripts.common.machine import anonymous_mb

QUERIES_FILE = f"queries-{TRUTH_DEPTH}.npz"
"""Both halves of the queries in FOLDER, each with its true rows."""


def main() -> None:
    verb, folder, name, path = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    vectors = np.load(folder / "images.npy", mmap_mode="r")
    family = next(family for family in families(*vectors.shape, in_memory=True) if family.name == name)
    if verb == "build":
        print(json.dumps(build(family, vectors, path)))
    elif verb == "again":
        print(json.dumps(again(folder, vectors, path, IndexSpec.model_validate_json(sys.argv[5]))))
    else:
        print(json.dumps(search(family, folder, vectors, path, float(sys.argv[5]))))


def build(family: Family, vectors: Any, path: Path) -> dict[str, Any]:
    """Build and save; memory is the peak of what the process holds itself, the mapped file of vectors aside."""
    with watched_memory() as peak:
        built = build_family(family, vectors, advance=lambda n: print(f"{n}", file=sys.stderr, flush=True))
        built.index.save(path)
    return {"build_s": built.measurement.build_s, "build_rss_mb": max(peak)}


def search(family: Family, folder: Path, vectors: Any, path: Path, recall: float) -> dict[str, Any]:
    """Load, find the quickest setting that reaches ``recall`` with both halves of the queries, and measure it."""
    search_on_one_thread()
    queries = _queries(folder)
    before = anonymous_mb()
    rows, dim = vectors.shape
    spec = IndexSpec(factory=family.factory, build_parameters=family.build, scores=family.scores, rows=rows, dim=dim)
    taken = Candidate(FaissIndex.load(spec, path, vectors), Measurement())
    taken.index.search(queries.sweep[:1], TIMED_K)
    ready_s = time.time() - psutil.Process().create_time()
    tried: list[Candidate] = []
    recalls = dict.fromkeys(RECALL_KS, 1.0)
    if not spec.exact:
        tried = list(sweep(taken, family, queries, until=(1 + recall) / 2))
        good = fastest_first(candidate for candidate in tried if _recall(candidate) >= recall)
        for candidate in [*good, max(tried, key=_recall)]:
            taken = confirmed(candidate, queries)
            recalls = taken.measurement.recalls
            if _recall(taken) >= recall:
                break
    p50, p99, cpu_p99 = times_ms(taken.index, queries.held_out)
    held, mapped_vectors = anonymous_mb() - before + mapped_mb(path), mapped_mb(folder / "images.npy")
    return {
        "setting": taken.index.spec.label(),
        "spec": taken.index.spec.model_dump_json(),
        "ready_s": ready_s,
        "recall": min(recalls.values()),
        "recall_at_10": recalls[10],
        "recalls": recalls,
        "score_error": taken.measurement.score_error,
        "p50_ms": p50,
        "p99_ms": p99,
        "cpu_p99_ms": cpu_p99,
        "index_mb": mapped_vectors if spec.exact else held,
        "mapped_vectors_mb": mapped_vectors,
        "tried": [
            [c.index.spec.label(), c.measurement.recalls, c.measurement.p50_ms, c.measurement.p99_ms] for c in tried
        ],
    }


def again(folder: Path, vectors: Any, path: Path, spec: IndexSpec) -> dict[str, Any]:
    """Search with the first half of the queries, so that what can be in memory is, and measure with the second."""
    search_on_one_thread()
    queries = _queries(folder)
    index = FaissIndex.load(spec, path, vectors)
    for query in queries.sweep:
        index.search(query[None], TIMED_K)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    p50, p99, cpu_p99 = times_ms(index, queries.held_out)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before
    found = index.search(queries.held_out, TIMED_K).rows
    return {
        "limited_p50_ms": p50,
        "limited_p99_ms": p99,
        "limited_cpu_p99_ms": cpu_p99,
        "limited_recall_at_10": recall_at_k(found, queries.held_out_truth[:, :TIMED_K]),
        "limited_disk_reads": faults,
    }


def _queries(folder: Path) -> TuningQueries:
    with np.load(folder / QUERIES_FILE) as kept:
        return TuningQueries("captions", kept["sweep"], kept["sweep_truth"], kept["held_out"], kept["held_out_truth"])


def _recall(candidate: Candidate) -> float:
    return candidate.measurement.recall or 0


def times_ms(index: VectorIndex, queries: Vectors) -> tuple[float, float, float]:
    """Median and 99th percentile of the wall time of single searches, and the 99th of their processor time, in ms.

    A neighbour that takes the core away shows in the wall time and not in the processor's.
    """
    wall, cpu = [], []
    for query in np.concatenate([queries[:100], queries]):
        start, start_cpu = time.perf_counter(), time.thread_time()
        index.search(query[None], TIMED_K)
        cpu.append(time.thread_time() - start_cpu)
        wall.append(time.perf_counter() - start)
    p50, p99 = np.percentile(wall[100:], [50, 99]) * 1e3
    return float(p50), float(p99), float(np.percentile(cpu[100:], 99) * 1e3)


def mapped_mb(path: Path) -> float:
    """Resident pages of a mapped file in this process, in MB."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path.resolve()))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total * 1024 / 1e6


@contextmanager
def watched_memory() -> Iterator[list[float]]:
    """Look at the memory every 50 ms; yields the list of what was seen."""
    seen, stop = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            seen.append(anonymous_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        seen.append(anonymous_mb())
        stop.set()
        watcher.join()


if __name__ == "__main__":
    main()
