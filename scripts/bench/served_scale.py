"""A whole service over a large collection in a control group: does it start, what does a search cost, what is read.

Text to image is what the memory is for: the images have codes in memory that give the scores, while the index of the
captions and all vectors stay in mapped files. Records are those of ``record_scale.py``. What the figures mean, of the
whole group and of the service's own measurements:

    ready_s     from the command to the first answer, with nothing of the artifact in the page cache
    held_mb     what all processes hold after the loads and the kernel cannot take back; the codes of the images are
                pages of a file (codes_mb)
    first_…     16 clients that ask for texts as soon as the service is ready
    text_…      the same after 40 s: the kernel has found out by then which pages are used
    lone_…      one of them
    composed_…  16 clients of ``/search``; one in six folds near-duplicates, which reads the vectors of 128 rows
    …_search_p50_ms, …_search_p99_ms  the search stage, as the service measures it
    …_disk_reads                      pages that processes of the group waited for the disk for
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo, artifact_version
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import link_or_copy, write_artifact
from clip_retrieval.encoders import read_info
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.choose import Candidate, TuningQueries, build_family, confirmed, sweep
from clip_retrieval.indexes.families import CODES_IN_CELLS, families
from clip_retrieval.models.prepare import cache_dir
from clip_retrieval.page_cache import drop_pages
from clip_retrieval.progress import Progress
from clip_retrieval.records import Modality
from scripts.bench import collection
from scripts.bench.memory_limit import memory_group
from scripts.bench.record_scale import CAPTIONS_EACH, caption_records, image_records
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import serving

RECALL = 0.95


class Load(NamedTuple):
    """What is asked, by how many clients at once, after how many seconds of the same that do not count."""

    name: str
    kind: str
    clients: int
    warm_up: float = 2


LOADS = (
    Load("first", "text", 16, warm_up=0),
    Load("text", "text", 16, warm_up=40),
    Load("lone", "text", 1),
    Load("composed", "composed", 16, warm_up=10),
)
QUERIES = 160_000
START_S = 0.5
"""About what the clients take to begin."""
SMALL = {"workers": "1", "decode_threads": "1", "max_upload_bytes": f"{4 * 2**20}"}
"""Settings of a service with little memory: one image is decoded at a time, and requests are of 4 MiB at most."""


def artifact_of(encoder: Path, images: int, family: str, progress: Progress) -> Artifact:
    """The artifact of so many synthetic images with the encoder in the folder ``encoder``; kept in the cache folder.

    ``family`` is that of the images' index, which is searched at the quickest setting whose recall is ``RECALL``.
    """
    info = read_info(encoder)
    data = DataInfo(
        name="synthetic",
        fingerprint=f"clip-like {images} with records, {family}",
        images=images,
        captions=images * CAPTIONS_EACH,
        rejected=0,
        splits={"train": images, "val": 0, "test": 0},
        split_ratios=(1.0, 0.0, 0.0),
        split_seed=0,
    )
    target = cache_dir() / "scale" / f"served-{artifact_version(info, data, RECALL)}"
    if target.exists():
        return Artifact.open(target)
    with tempfile.TemporaryDirectory(dir=cache_dir() / "scale") as scratch:
        drawn = {name: Path(scratch) / f"{name}.npy" for name in ("images", "captions")}
        with progress.stage(f"drawing {images:,} images", images) as advance:
            draw(drawn["images"], drawn["captions"], images, info.dim, advance)
        vectors: dict[str, Vectors] = {name: np.load(file, mmap_mode="r") for name, file in drawn.items()}
        image_index = chosen("images", vectors["images"], vectors["captions"], "captions", family, progress)
        caption_index = chosen("captions", vectors["captions"], vectors["images"], "images", CODES_IN_CELLS, progress)

        def fill(folder: Path) -> None:
            for file in encoder.rglob("*"):
                if file.is_file():
                    place = folder / ENCODER / file.relative_to(encoder)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(file, place)
            for name, index in (("images", image_index), ("captions", caption_index)):
                drawn[name].rename(folder / f"{name}.npy")
                index.index.save(folder / f"{name}.faiss")
            with progress.stage("records", images) as advance, RecordStore.create(folder / RECORDS) as store:
                store.add(image_records(images, advance), caption_records(images * CAPTIONS_EACH))

        with progress.stage("writing the artifact", None):
            return write_artifact(
                target,
                version=artifact_version(info, data, RECALL),
                encoder=info,
                data=data,
                images=image_index.built,
                captions=caption_index.built,
                fill=fill,
            )


def draw(images: Path, captions: Path, count: int, dim: int, advance: Callable[[int], None]) -> None:
    """Write the vectors of ``collection.clip_like`` block by block."""
    shown = np.lib.format.open_memmap(images, "w+", np.float32, (count, dim))
    said = np.lib.format.open_memmap(captions, "w+", np.float32, (count * CAPTIONS_EACH, dim))
    start = 0
    for image_vectors, texts in collection.clip_like_blocks(count, CAPTIONS_EACH, dim):
        end = start + len(image_vectors)
        shown[start:end], said[start * CAPTIONS_EACH : end * CAPTIONS_EACH] = image_vectors, texts
        start = end
        advance(len(image_vectors))
    shown.flush()
    said.flush()


def chosen(
    name: str, vectors: Vectors, queries: Vectors, kind: Modality, family_name: str, progress: Progress
) -> Candidate:
    """The family's index at the quickest setting whose least recall is ``RECALL``, or at the most thorough one.

    Raises SystemExit where so many rows have no such family.
    """
    with progress.stage(f"exact search for {name}", None):
        drawn = TuningQueries.draw(vectors, queries, kind)
    known = {family.name: family for family in families(*vectors.shape, in_memory=True)}
    if family_name not in known:
        raise SystemExit(f"{len(vectors):,} {name} have no index {family_name!r}; choose from {', '.join(known)}")
    family = known[family_name]
    with progress.stage(f"building the index of {name}", len(vectors)) as advance:
        built = build_family(family, vectors, advance=advance)
    with progress.stage(f"measuring the index of {name}", None):
        swept = list(sweep(built, family, drawn, until=RECALL))
        good = [one for one in swept if (one.measurement.recall or 0) >= RECALL] or swept[-1:]
        return confirmed(min(good, key=lambda one: one.measurement.p50_ms or 0), drawn)


def measure(
    artifact: Artifact, limit_mb: float, seconds: float, progress: Progress, settings: Mapping[str, str]
) -> dict[str, Any]:
    """Serve the artifact in a group of ``limit_mb`` MB and ask it. Raises NotReady where it does not start.

    ``settings`` are those of ``clip_retrieval/serving/settings.py``.
    """
    files = [file for file in artifact.path.rglob("*") if file.is_file()]
    with tempfile.TemporaryDirectory() as scratch, memory_group(limit_mb) as group:
        queries = Path(scratch) / "queries.json"
        queries.write_text(json.dumps(collection.queries(collection.sample_captions(SAMPLE), QUERIES)))
        environment = {f"BENTO_CLIP_{name.upper()}": value for name, value in {**SMALL, **settings}.items()}

        def command(port: int) -> list[str]:
            serve = [sys.executable, "-m", "clip_retrieval", "serve", str(artifact.path), "--port", f"{port}"]
            return group.command(serve)

        os.sync()  # what is not on the disk yet is not dropped
        drop_pages(files)
        row: dict[str, Any] = {"images": artifact.manifest.data.images, "limit_mb": limit_mb}
        with (
            progress.stage(f"serving in {limit_mb:g} MB", len(LOADS) + 1) as advance,
            serving(command, environment=environment) as server,
        ):
            row["ready_s"] = round(server.ready_s, 2)
            advance(1)
            for part, load in enumerate(LOADS):
                ask = [sys.executable, "-m", "scripts.bench.client", server.url, load.kind]
                ask += ["--clients", f"{load.clients}", "--seconds", f"{seconds}", "--warm-up", f"{load.warm_up}"]
                ask += ["--queries", str(queries), "--offset", f"{part * (QUERIES // len(LOADS))}"]
                with subprocess.Popen(ask, cwd=ROOT, stdout=subprocess.PIPE) as asking:
                    time.sleep(load.warm_up + START_S)
                    before = group.disk_reads()
                    answer, _ = asking.communicate()
                if asking.returncode:
                    raise SystemExit(f"the clients of the load {load.name!r} ended with status {asking.returncode}")
                found = figures(json.loads(answer)) | {"disk_reads": group.disk_reads() - before}
                row |= {f"{load.name}_{name}": value for name, value in found.items()}
                advance(1)
            row |= {"held_mb": round(group.held_mb()), "peak_mb": round(group.peak_mb())}
    measured = artifact.manifest.images.measured
    codes = (artifact.path / "images.faiss").stat().st_size / 1e6
    return row | {"codes_mb": round(codes), "recall_at_10": measured and measured.recall_at_10}


def figures(found: dict[str, Any]) -> dict[str, float]:
    """What a run of the clients gave."""
    search, latencies = found["search_ms"] or [float("nan")], found["latencies_ms"] or [float("nan")]
    return {
        "per_s": round(found["requests"] / found["seconds"], 1),
        "p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "p99_ms": round(float(np.percentile(latencies, 99)), 2),
        "search_p50_ms": round(float(np.percentile(search, 50)), 3),
        "search_p99_ms": round(float(np.percentile(search, 99)), 3),
        "failed": found["failed"],
    }
