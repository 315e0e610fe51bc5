"""Bulk embedding with workers on Ray beside the encoder alone, and what that means for large collections.

    python -m scripts.bench_embed_scale            # ViT-B/32 with random weights; some minutes
    python -m scripts.bench_embed_scale --short    # a quarter of the images, one round

A worker has one core here. ``encoder alone`` encodes on one core, in batches of the same size, pixels that are in
memory already. ``1 worker`` and ``2 workers`` build shards of the bundled images by ``bento-clip build --engine ray``;
their rate is that of the time in which workers had blocks, without the start of Ray and the loading of the encoder,
which are given beside it. Rounds alternate, and the best of each counts: another program can only slow a round down.
Tables on standard error, one JSON line last.

The table of hours is computed:

    hours = images / (3600 · nodes · scaling · min(encoder, cores / preparation))

``encoder`` is the rate of a node: the measured rate of one core times its cores, or what is assumed of its GPU.
``preparation`` is the measured time (s) in which one core reads, decodes, resizes and shrinks an image. On a CPU node
it takes cores from the encoder, so the rate there is cores / (1 / rate of the encoder on a core + preparation).
``scaling`` is the measured rate of 2 workers by twice that of 1, at most 1. Assumed: workers do not wait for the store
of images. Nothing was run on more than this machine.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from clip_retrieval.build.blocks import EmbedJob, cut, versions
from clip_retrieval.build.embed import IMAGE_BATCH
from clip_retrieval.build.embed_ray import RayWorkers
from clip_retrieval.build.shards import ShardManifest
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.encoders.base import Encoder
from clip_retrieval.images.decode import Limits, decode_blob
from clip_retrieval.images.shrink import PLANS, shrink
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.records import CaptionedImage
from scripts.bench.artifact import MODEL, random_weights
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import SAMPLE

SIZES = {"1 M": 10**6, "100 M": 10**8, "5 G": 5 * 10**9}


@dataclass(frozen=True)
class Measured:
    """What the hours are computed from. Rates are images a second."""

    encoder_per_core: float
    preparation_s: float
    scaling: float

    def node_rate(self, cores: int, gpu_rate: float | None) -> float:
        """Images a second of one node with these cores, and a GPU of this rate if there is one."""
        if gpu_rate is not None:
            return min(gpu_rate, cores / self.preparation_s)
        return cores / (1 / self.encoder_per_core + self.preparation_s)

    def hours(self, images: int, nodes: int, cores: int, gpu_rate: float | None) -> float:
        """See the formula above."""
        return images / (3600 * nodes * self.scaling * self.node_rate(cores, gpu_rate))


@dataclass(frozen=True)
class Run:
    """One build of shards with some workers."""

    wall_s: float
    busy_s: float
    """Seconds from the first block that a worker began to the last that it wrote."""
    manifests: Sequence[ShardManifest]

    @property
    def rate(self) -> float:
        """Images a second while workers had blocks."""
        return sum(made.images for made in self.manifests) / self.busy_s

    @property
    def share_not_encoding(self) -> float:
        """The part of the workers' time in which the encoder did not compute."""
        return 1 - sum(made.encoder_seconds for made in self.manifests) / sum(made.seconds for made in self.manifests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--images", type=int, default=512, help="images of a run; the bundled ones, repeated")
    parser.add_argument("--short", action="store_true", help="128 images")
    parser.add_argument("--cores", type=int, default=16, help="cores of a node in the table")
    parser.add_argument("--gpu-rate", type=float, default=2000, help="images a second that a GPU is assumed to encode")
    arguments = parser.parse_args()
    folder = prepare_encoder(arguments.model, arguments.pretrained or random_weights(arguments.model))
    items = repeated(128 if arguments.short else arguments.images)
    encoder = load_encoder(folder, threads=1)
    prepare_s = min(preparation(encoder, items[:IMAGE_BATCH]) for _ in range(3))
    alone = 0.0
    runs: dict[int, Run] = {}
    for _ in range(1 if arguments.short else 3):
        alone = max(alone, encoder_alone(encoder, items[:IMAGE_BATCH], batches=2 if arguments.short else 6))
        for workers in (1, 2):
            run = embed(folder, items, workers)
            runs[workers] = max(run, runs.get(workers, run), key=lambda one: one.rate)
    measured = Measured(alone, prepare_s, min(1.0, runs[2].rate / (2 * runs[1].rate)))

    table = Table("what", "images a second", "not encoding", "start and end, s", title=f"{len(items)} images")
    table.add_row("encoder alone, 1 core", f"{alone:.1f}", "", "")
    for workers, run in runs.items():
        name = f"{workers} worker{'s' * (workers > 1)} of 1 core"
        table.add_row(name, f"{run.rate:.1f}", f"{run.share_not_encoding:.0%}", f"{run.wall_s - run.busy_s:.1f}")
    err.print(table)
    nodes = {"CPU": None, "GPU": arguments.gpu_rate}
    hours = {
        size: {
            f"{count} {kind}": measured.hours(images, count, arguments.cores, rate)
            for kind, rate in nodes.items()
            for count in (1, 10, 100)
        }
        for size, images in SIZES.items()
    }
    table = Table("images", *next(iter(hours.values())), title=f"hours, by nodes of {arguments.cores} cores (computed)")
    for size, row in hours.items():
        table.add_row(size, *(f"{value:,.1f}" for value in row.values()))
    err.print(table)
    result = {
        "encoder_alone_per_s": alone,
        "preparation_ms": prepare_s * 1000,
        "workers_per_s": {str(workers): run.rate for workers, run in runs.items()},
        "not_encoding": {str(workers): run.share_not_encoding for workers, run in runs.items()},
        "start_and_end_s": {str(workers): run.wall_s - run.busy_s for workers, run in runs.items()},
        "shard_bytes_per_image": sum(made.bytes for made in runs[1].manifests) / len(items),
        "scaling": measured.scaling,
        "hours": hours,
        "assumed": {"cores": arguments.cores, "gpu_per_s": arguments.gpu_rate},
        "model": encoder.info.name,
        "images": len(items),
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }
    print(json.dumps(result))


def repeated(count: int) -> list[CaptionedImage]:
    """``count`` images: the bundled ones, again and again under other ids, so that every block is another one."""
    bundled = [item for item in open_source(SAMPLE) if isinstance(item, CaptionedImage)]
    return [replace(bundled[number % len(bundled)], image_id=str(number)) for number in range(count)]


def preparation(encoder: Encoder, items: Sequence[CaptionedImage]) -> float:
    """Seconds in which one core makes the pixels and the thumbnail of an image."""

    def prepare() -> None:
        for item in items:
            image = decode_blob(item.blob)
            encoder.preprocess(image)
            shrink(image, PLANS[0])

    return seconds(prepare) / len(items)


def encoder_alone(encoder: Encoder, items: Sequence[CaptionedImage], batches: int) -> float:
    """Images a second of the encoder, on pixels that are there."""
    pixels = np.stack([encoder.preprocess(decode_blob(item.blob)) for item in items])
    encoder.encode_pixels(pixels)
    return batches * len(pixels) / seconds(lambda: [encoder.encode_pixels(pixels) for _ in range(batches)])


def embed(folder: Path, items: Sequence[CaptionedImage], workers: int) -> Run:
    """Build the shards with workers of one core each."""
    info = read_info(folder)
    place = tempfile.mkdtemp(prefix="bench-shards-")
    try:
        job = EmbedJob(
            folder, info.fingerprint, info.runtime, info.dim, Limits(), PLANS[0], IMAGE_BATCH, place, versions()
        )
        start = time.perf_counter()
        first: float | None = None
        manifests: list[ShardManifest] = []
        last = start
        for manifest in RayWorkers(workers=workers, cpus=1)(job, list(cut(items, IMAGE_BATCH, job))):
            last = time.perf_counter()
            first = last - manifest.seconds if first is None else first
            manifests.append(manifest)
        return Run(time.perf_counter() - start, last - (first or start), manifests)
    finally:
        shutil.rmtree(place)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
