"""Start and memory of a whole retriever over many records: two captions and three columns for each image.

    python -m scripts.bench.record_scale FOLDER

measures in a process of its own and prints one JSON line. Vectors are drawn at random and small, for the fake encoder:
what is measured is what the records cost. ``make`` writes the artifact. What the figures mean:

    verify_s                     every file against its hash; the only part that grows with the bytes
    open_s                       from a verified artifact to a retriever
    first_query_s                a text query, exact search included
    ready_s                      all three
    …_anonymous_mb               what the process holds itself, beyond what it held before
    …_rss_mb                     the same and the touched pages of mapped files, which the kernel may drop
    where_…_ms                   the first search with a condition on a column of that kind
    where_contains_ms            the first one makes a copy of the column's text without its case; _again has it
    write_arrays_s               arrays, columns, hashes and sync when the artifact is written
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.contract.queries import text
from clip_retrieval.encoders import INFO_FILE
from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec
from clip_retrieval.records import CaptionRecord, ImageRecord, Scalar
from clip_retrieval.search.retriever import Retriever
from scripts.common.machine import anonymous_mb

CAPTIONS_EACH = 2
PLACES = 5000
BLOCK = 65_536


def make(target: Path, images: int, advance: Callable[[int], None]) -> float:
    """Write the artifact ``target``; returns the seconds that its arrays and columns took, hashes and sync included."""
    encoder, captions = FakeEncoder().info, images * CAPTIONS_EACH
    filled = 0.0

    def fill(folder: Path) -> None:
        nonlocal filled
        (folder / ENCODER).mkdir()
        (folder / ENCODER / INFO_FILE).write_text(encoder.model_dump_json())
        for number, (name, rows) in enumerate((("images", images), ("captions", captions))):
            rng = np.random.default_rng(number)
            vectors = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (rows, encoder.dim))
            for start in range(0, rows, BLOCK):
                block = vectors[start : start + BLOCK]
                block[:] = unit_rows(rng.standard_normal(block.shape))
            vectors.flush()
        with RecordStore.create(folder / RECORDS) as store:
            store.add(image_records(images, advance), caption_records(captions))
        filled = time.perf_counter()

    write_artifact(
        target,
        version="0" * 16,
        encoder=encoder,
        data=DataInfo(
            name="synthetic records",
            fingerprint=f"{images}",
            images=images,
            captions=captions,
            rejected=0,
            splits={"train": images, "val": 0, "test": 0},
            split_ratios=(1.0, 0.0, 0.0),
            split_seed=0,
        ),
        images=BuiltIndex(spec=IndexSpec(rows=images, dim=encoder.dim)),
        captions=BuiltIndex(spec=IndexSpec(rows=captions, dim=encoder.dim)),
        fill=fill,
    )
    return time.perf_counter() - filled


def image_records(images: int, advance: Callable[[int], None]) -> Iterator[ImageRecord]:
    """Images with a column of numbers, one of repeated texts and one of distinct texts."""
    for row in range(images):
        metadata: dict[str, Scalar] = {
            "year": 1980 + row % 40,
            "place": f"place {row * 7919 % PLACES}",
            "title": f"A title of image {row}",
        }
        yield ImageRecord(row, f"images/{row}.jpg", f"images/{row}.jpg", f"{row:064x}", 500, 375, "train", metadata)
        if row % 1000 == 999:
            advance(1000)


def caption_records(captions: int) -> Iterator[CaptionRecord]:
    """Captions of about 40 characters, those of an image one after the other."""
    for row in range(captions):
        yield CaptionRecord(row, f"{row}", row // CAPTIONS_EACH, f"a caption of about forty letters, {row}")


def measure(folder: Path) -> dict[str, Any]:
    """Open the artifact, answer queries, and say how long that took and what the process holds."""
    encoder = FakeEncoder()
    rss, held = resident_mb(), anonymous_mb()
    start = time.perf_counter()
    artifact = Artifact.open(folder)
    verified = time.perf_counter()
    retriever = Retriever(artifact, encoder)
    opened, opened_mb = time.perf_counter(), anonymous_mb()
    assert retriever.search([text("a red square")], k=10).images
    first = time.perf_counter()
    row: dict[str, Any] = {
        "images": artifact.manifest.data.images,
        "captions": artifact.manifest.data.captions,
        "verify_s": round(verified - start, 3),
        "open_s": round(opened - verified, 4),
        "first_query_s": round(first - opened, 4),
        "ready_s": round(first - start, 3),
        "opened_anonymous_mb": round(opened_mb - held, 1),
        "ready_anonymous_mb": round(anonymous_mb() - held, 1),
        "ready_rss_mb": round(resident_mb() - rss, 1),
    }
    for name, where in (
        ("number", {"year": {"gte": 2000}}),
        ("text", {"place": "place 77"}),
        ("contains", {"title": {"contains": "IMAGE 77"}}),
        ("contains_again", {"title": {"contains": "image 78"}}),
    ):
        start = time.perf_counter()
        assert retriever.search([text("a red square")], k=10, where=where).images
        row[f"where_{name}_ms"] = round((time.perf_counter() - start) * 1e3, 1)
    assert retriever.search([text("a red square")], k=10, target="captions", where={"year": 2001}).captions
    return row | {
        "filtered_anonymous_mb": round(anonymous_mb() - held, 1),
        "filtered_rss_mb": round(resident_mb() - rss, 1),
    }


def resident_mb() -> float:
    """Resident memory of this process in MB (10⁶ bytes), with the touched pages of mapped files. Linux alone."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
