"""How long a search takes when a filter keeps it to some of the rows, and whether it still finds the best of them.

    python -m scripts.bench_filter --rows 100000

The collection is synthetic and CLIP-like (see ``bench/collection.py``); each image has a category (one of ten), a tag
(one of a thousand), a year, a lot (one of twenty thousand) and a title of its own. A search is the whole search stage
of ``POST /search``: the mask of the filter, the index, the page. All are single searches on one thread, by caption
vectors against image rows. ``p50_ms`` and ``p99_ms`` are wall times with a mask that was kept; ``cpu_ms`` is the
median of the thread's processor time, which other work on the machine changes less; ``first_cpu_ms`` is with a mask
that has to be made (for ``contains``, with the copy of the text without its case). ``recall_at_10`` is against brute
force over the rows that the filter lets through. ``counts_cpu_ms`` is the time to count all five fields beside the
filter, with nothing kept. Prints a table on standard error and one JSON line last.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from clip_retrieval.artifacts.columns import StoredColumn, open_columns, write_columns
from clip_retrieval.contract.queries import search_request, text
from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import MIN_DEPTH, IndexSpec, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex, search_on_one_thread
from clip_retrieval.indexes.measure import recall_at_k
from clip_retrieval.records import Scalar, Split
from clip_retrieval.search.field_counts import fields_beside
from clip_retrieval.search.filters import RowFilter
from clip_retrieval.search.ranking import FOLD_BLOCK_ROWS, RankedPage, Ranking, cut_page
from scripts.bench.collection import clip_like, sample_captions
from scripts.common import machine
from scripts.common.paths import SAMPLE

DIM, QUERIES, K = 512, 200, 10
WHERES: dict[str, Mapping[str, Any] | None] = {
    "no filter": None,
    "one lot, 1 of 20,000 rows": {"lot": 77},
    "one tag, 1 of 1,000": {"tag": "t77"},
    "one category, 1 of 10": {"category": "c3"},
    "three categories": {"category": {"in": ["c1", "c2", "c3"]}},
    "half of the years": {"year": {"gte": 2000}},
    "nine categories of ten": {"category": {"lt": "c9"}},
    "text in the title": {"title": {"contains": "red"}},
}


def collection(rows: int, seed: int = 0) -> list[StoredColumn]:
    """Columns of ``rows`` images, which have nothing to do with the vectors."""
    rng = np.random.default_rng(seed)
    words = sample_captions(SAMPLE)
    numbers = rng.integers(2**31, size=(rows, 5)).tolist()
    facts: Iterator[tuple[Split, dict[str, Scalar]]] = (
        (
            "train",
            {
                "category": f"c{a % 10}",
                "tag": f"t{b % 1000}",
                "year": 1980 + c % 40,
                "lot": d % 20_000,
                "title": f"{words[e % len(words)]} {row}",
            },
        )
        for row, (a, b, c, d, e) in enumerate(numbers)
    )
    with tempfile.TemporaryDirectory() as folder:  # a mapped file stays readable after its name is gone
        write_columns(Path(folder) / "columns", facts)
        return open_columns(Path(folder) / "columns", rows)


def new_filter(columns: list[StoredColumn]) -> RowFilter:
    """A filter that has kept no mask yet."""
    return RowFilter(columns, np.empty(0, dtype=np.int32))


def measure(
    name: str, columns: list[StoredColumn], index: VectorIndex, vectors: Vectors, queries: Vectors
) -> dict[str, Any]:
    """One line of the table."""
    where = search_request([text("x")], where=WHERES[name]).where
    filters = new_filter(columns)

    def search(query: Vectors, k: int = K, offset: int = 0, *, dedupe: bool = False) -> tuple[RankedPage, float, float]:
        start, cpu = time.perf_counter(), time.thread_time()
        allowed = None if where is None else filters.mask(where, "images")
        ranking = Ranking(index, query, front=FOLD_BLOCK_ROWS if dedupe else None, allowed=allowed)
        page = cut_page(ranking, k, offset, dedupe=dedupe)
        return page, (time.perf_counter() - start) * 1e3, (time.thread_time() - cpu) * 1e3

    allowed = None if where is None else filters.mask(where, "images")
    count = index.spec.rows if allowed is None else int(allowed.sum())
    cosines = queries @ vectors.T
    if allowed is not None:
        cosines[:, ~allowed] = -np.inf
    best = min(K, count)
    truth = np.argsort(-cosines, axis=1, kind="stable")[:, :best]
    pages = [search(query) for query in queries]
    warm = pages[len(pages) // 10 :]
    times = [ms for _, ms, _ in warm]
    first = []
    for query in queries[:10]:
        filters = new_filter(columns)
        first.append(search(query)[2])
    counts = []
    for _ in range(10):
        filters, cpu = new_filter(columns), time.thread_time()
        fields_beside(columns, where or {}, lambda part, fresh=filters: fresh.mask(part, "images"))  # type: ignore[misc]
        counts.append((time.thread_time() - cpu) * 1e3)
    return {
        "where": name,
        "rows": count,
        "p50_ms": round(float(np.median(times)), 3),
        "cpu_ms": round(float(np.median([cpu for _, _, cpu in warm])), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
        "first_cpu_ms": round(float(np.median(first)), 3),
        "offset_1000_cpu_ms": round(float(np.median([search(query, K, 1000)[2] for query in queries[:20]])), 3),
        "dedupe_cpu_ms": round(float(np.median([search(query, K, dedupe=True)[2] for query in queries[:20]])), 3),
        "counts_cpu_ms": round(float(np.median(counts)), 3),
        "recall_at_10": round(recall_at_k(np.array([page.rows for page, *_ in pages]), truth), 4),
        "results": sum(len(page.rows) for page, *_ in pages) == best * len(pages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--factory", default="HNSW16,SQ8", help="an index factory string of FAISS")
    parser.add_argument("--ef-search", type=int, default=128)
    parser.add_argument("--depth", type=int, default=MIN_DEPTH, help="candidates that the vectors order, at least")
    arguments = parser.parse_args()
    err = Console(stderr=True)
    images, captions = clip_like(arguments.rows, 1, DIM)
    queries = captions[np.random.default_rng(1).permutation(len(captions))[:QUERIES]]
    graph = "HNSW" in arguments.factory
    spec = IndexSpec(
        factory=arguments.factory,
        build_parameters={"efConstruction": 200} if graph else {},
        search_parameters={"efSearch": arguments.ef_search} if graph else {},
        depth=arguments.depth,
        rows=len(images),
        dim=DIM,
    )
    with err.status(f"building {spec.label()} over {spec.rows} rows"):
        index = FaissIndex.build(spec, images)
    search_on_one_thread()
    threadpool_limits(1, user_api="blas")
    columns = collection(spec.rows)
    lines = [measure(name, columns, index, images, queries) for name in WHERES]
    table = Table(*lines[0], title=f"{spec.label()}, {spec.rows} rows")
    for line in lines:
        table.add_row(*map(str, line.values()))
    err.print(table)
    print(
        json.dumps(
            {
                "index": spec.label(),
                "rows": spec.rows,
                "dim": DIM,
                "queries": QUERIES,
                "searches": lines,
                "cpu": machine.cpu(),
                "cores": usable_cores(),
                "commit": machine.commit(),
            }
        )
    )


if __name__ == "__main__":
    main()
