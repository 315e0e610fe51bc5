"""One synthetic collection behind FAISS and behind Milvus Lite: recall, time of a search, memory, time of the build.

    python -m scripts.bench_engines --rows 100000
    python -m scripts.bench_engines --short

The collection is synthetic and CLIP-like (see ``bench/collection.py``). Both engines build a graph of the same size
(HNSW, 16 neighbours, ``efConstruction`` 200) over the image vectors. Each is searched as broadly as a recall of 0.995
at 1, 10 and 50 needs, as a build does for a promise of 0.99; the queries are caption vectors, half for that choice,
half for the figures. Each engine runs in a process of its own, one after the other, with one thread a search.
``p50_ms`` and ``p99_ms`` are those of the search stage, index and page. ``memory_mb`` is what the engine added to the
process, without pages that a file backs: both read the vectors that order the candidates from the same file.
``filtered`` is a search among half of the rows.

Milvus Lite is Python in the process and for trying; it says nothing of a Milvus cluster. A table goes to standard
error, one JSON line comes last.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from threadpoolctl import threadpool_limits

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import MIN_DEPTH, IndexSpec, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex, exact_search, search_on_one_thread
from clip_retrieval.indexes.measure import LEAST_RECALL, RECALL_KS, TRUTH_DEPTH, recall_at_k
from clip_retrieval.indexes.milvus_engine import ROW, VECTOR
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.search.ranking import Ranking, cut_page
from scripts.bench.collection import clip_like
from scripts.common import machine
from scripts.common.console import err

NEIGHBOURS, EF_CONSTRUCTION = 16, 200
BREADTHS = (64, 96, 128, 192, 256, 384, 512, 1024)
ENGINES = ("faiss", "milvus")
FIELD, GROUPS = "column_0", 10
K = 10
WARM_UP, TIMED, TOGETHER = 20, 200, 100
"""Searches before those that count, searches that are timed, and queries of one call where nothing is timed."""


def batches(vectors: Vectors) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(vectors), 1000):
        block = np.asarray(vectors[start : start + 1000])
        yield [{ROW: start + row, VECTOR: one, FIELD: float((start + row) % GROUPS)} for row, one in enumerate(block)]


def faiss_index(vectors: Vectors) -> FaissIndex:
    rows, dim = vectors.shape
    spec = IndexSpec(
        factory=f"HNSW{NEIGHBOURS}", build_parameters={"efConstruction": EF_CONSTRUCTION}, rows=rows, dim=dim
    )
    return FaissIndex.build(spec, vectors)


def milvus_index(vectors: Vectors, folder: Path) -> MilvusIndex:
    rows, dim = vectors.shape
    engine = MilvusWriter(str(folder / "index.db"), search_s=60)
    build = {"M": NEIGHBOURS, "efConstruction": EF_CONSTRUCTION}
    engine.fill("bench", dim, {FIELD: ("number", "group")}, batches(vectors), ("HNSW", build))
    spec = IndexSpec(engine="milvus", name="bench", factory="HNSW", search_parameters={"ef": 64}, rows=rows, dim=dim)
    index = MilvusIndex(spec, engine, vectors)
    index.search(np.asarray(vectors[:1]), K)
    return index


def recalls(index: VectorIndex, queries: Vectors, truth: NDArray[np.int64]) -> dict[int, float]:
    blocks = [queries[start : start + TOGETHER] for start in range(0, len(queries), TOGETHER)]
    found = np.concatenate([index.search(block, TRUTH_DEPTH).rows for block in blocks])
    return {k: round(recall_at_k(found[:, :k], truth[:, :k]), 4) for k in RECALL_KS}


def times(index: VectorIndex, queries: Vectors, allowed: NDArray[np.bool_] | None = None) -> dict[str, float]:
    ms = []
    for query in [*queries[:WARM_UP], *queries[:TIMED]]:
        start = time.perf_counter()
        cut_page(Ranking(index, query, allowed=allowed), K)
        ms.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(ms[WARM_UP:], (50, 99))
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def measure(engine: str, folder: Path) -> dict[str, Any]:
    """The figures of one engine; runs in a process of its own."""
    search_on_one_thread()
    vectors: Vectors = np.load(folder / "images.npy", mmap_mode="r")
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    half = len(queries) // 2
    before, start = machine.anonymous_mb(), time.perf_counter()
    index = faiss_index(vectors) if engine == "faiss" else milvus_index(vectors, folder)
    build_s, memory_mb = time.perf_counter() - start, machine.anonymous_mb() - before
    name = "efSearch" if engine == "faiss" else "ef"
    with threadpool_limits(1):
        for breadth in BREADTHS:
            index = index.with_search({name: breadth}, MIN_DEPTH)
            if min(recalls(index, queries[:half], truth[:half]).values()) >= (1 + LEAST_RECALL) / 2:
                break
        allowed = np.arange(len(vectors)) % GROUPS < GROUPS // 2
        filtered = index.filtered_by(f"{FIELD} < {GROUPS // 2}") if isinstance(index, MilvusIndex) else index
        return {
            "engine": engine,
            "index": index.spec.label(),
            "recalls": recalls(index, queries[half:], truth[half:]),
            **times(index, queries[half:]),
            "filtered": times(filtered, queries[half:], allowed),
            "build_s": round(build_s, 1),
            "memory_mb": round(memory_mb),
        }


def table(figures: Sequence[dict[str, Any]], rows: int, dim: int) -> Table:
    shown = Table("engine", "index", "recall@1, 10, 50", "p50 ms", "p99 ms", "filtered p50 ms", "build s", "MB")
    shown.title = f"{rows:,} images of {dim} dimensions"
    for one in figures:
        recall = ", ".join(f"{share:.3f}" for share in one["recalls"].values())
        cells = (one["p50_ms"], one["p99_ms"], one["filtered"]["p50_ms"], one["build_s"], one["memory_mb"])
        shown.add_row(one["engine"], one["index"], recall, *map(str, cells))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--short", action="store_true", help="5,000 rows of 64 dimensions, for CI")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(measure(arguments.engine, arguments.folder)))
        return
    rows, dim, count = (5_000, 64, 100) if arguments.short else (arguments.rows, arguments.dim, arguments.queries)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, captions = clip_like(rows, 1, dim)
        queries = captions[np.random.default_rng(1).permutation(len(captions))[:count]]
        np.save(folder / "images.npy", images)
        np.save(folder / "queries.npy", queries)
        np.save(folder / "truth.npy", exact_search(images, queries, TRUTH_DEPTH).rows)
        del images, captions
        figures = []
        for engine in ENGINES:
            err.print(f"measuring {engine} …")
            command = [sys.executable, "-m", "scripts.bench_engines", "--engine", engine, "--folder", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    err.print(table(figures, rows, dim))
    about = {"rows": rows, "dim": dim, "queries": count // 2, "cpu": machine.cpu(), "commit": machine.commit()}
    print(json.dumps({**about, "engines": figures}))


if __name__ == "__main__":
    main()
