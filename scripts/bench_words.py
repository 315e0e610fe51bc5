"""How long it takes to index the words of a collection, and to find images by them.

    python -m scripts.bench_words --images 100000

Each image has one caption, a path, an id and two fields (``bench/collection.py``); the captions are those of the
bundled photographs, again and again, so that every word of theirs is in many images. To each, a serial number and one
of twenty thousand names is added. A search is the ranking by words alone, without vectors; ``cpu`` is the thread's
processor time, which other work on the machine changes less. Prints a table on standard error and one JSON line last.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.word_search import BaseWords, find, wanted_words
from clip_retrieval.artifacts.words import StoredWords, write_words
from scripts.bench.collection import records, sample_captions
from scripts.common import machine
from scripts.common.paths import SAMPLE

QUERIES = 200
NAMES = 20_000


def measure(images: int) -> dict[str, object]:
    """Build and ask an index of so many images."""
    rng = np.random.default_rng(0)
    image_records, captions = records(sample_captions(SAMPLE), images, 1)
    names = rng.integers(NAMES, size=images).tolist()
    captions = [
        replace(one, text=f"{one.text} name{name} number{one.row}") for one, name in zip(captions, names, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        with RecordStore.create(Path(folder) / "records") as store:
            store.add(image_records, captions)
        start = time.perf_counter()
        write_words(Path(folder) / "records", Path(folder) / "words", ["category"], None)
        build_s = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (Path(folder) / "words").iterdir())
        with closing(StoredWords.open(Path(folder) / "words", {"images": images, "captions": images})) as stored:
            words = BaseWords(stored)
            asked: Mapping[str, Callable[[], str]] = {
                "a number": lambda: f"number{rng.integers(images)}",
                "a name": lambda: f"name{rng.integers(NAMES)}",
                "a sentence": lambda: captions[int(rng.integers(160))].text.rsplit(" ", 2)[0],
                "a sentence with a name": lambda: captions[int(rng.integers(images))].text,
                "a word of nearly all": lambda: "a",
                "a word of 5,625 images in 100,000": lambda: "windmill",
            }
            times = {kind: _times(words, make) for kind, make in asked.items()}
    return {
        "images": images,
        "build_s": round(build_s, 1),
        "mb": round(size / 1e6, 1),
        "ms": times,
        "cpu": machine.cpu(),
        "commit": machine.commit(),
    }


def _times(words: BaseWords, make: Callable[[], str]) -> dict[str, float]:
    """Wall and processor times of single searches in milliseconds, and how many rows they found."""
    wall, processor, found = [], [], 0
    for _ in range(QUERIES):
        wanted = wanted_words([(make(), 1.0)])
        start, start_cpu = time.perf_counter(), time.thread_time()
        found += len(find(words, "images", wanted))
        wall.append((time.perf_counter() - start) * 1e3)
        processor.append((time.thread_time() - start_cpu) * 1e3)
    p50, p99 = np.percentile(wall, [50, 99])
    cpu_p50, cpu_p99 = np.percentile(processor, [50, 99])
    named = {"p50_ms": p50, "p99_ms": p99, "cpu_p50_ms": cpu_p50, "cpu_p99_ms": cpu_p99, "rows": found / QUERIES}
    return {name: round(float(value), 3) for name, value in named.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="number of images (default: 100000)")
    measured = measure(parser.parse_args().images)
    table = Table("query", "p50 ms", "p99 ms", "cpu p50", "cpu p99", "rows found")
    times = measured["ms"]
    assert isinstance(times, dict)
    for kind, seen in times.items():
        table.add_row(kind, *(f"{value:.2f}" for value in seen.values()))
    Console(stderr=True).print(table)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
