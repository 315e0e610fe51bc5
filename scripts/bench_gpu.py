"""Bulk encoding on a GPU: in half precision beside float32, alone and with the decoding of images.

    python -m scripts.bench_gpu                            # ViT-B/32 with random weights
    python -m scripts.bench_gpu --model ViT-L-14 --seconds 20

Prints a table on standard error and one JSON line last. Where torch sees no GPU it measures nothing: the line has
``"gpu": null`` and why, and the status is 0.

    images_per_s    of the encoder alone, by precision, in batches of pixels that are in memory already
    texts_per_s     the same for captions
    build_per_s     images a second as ``build --device cuda`` embeds them: read, decoded, resized, encoded, written
    part            inputs that are computed at once, as the memory of the GPU allows
    least_cosine    between the vectors of both precisions
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from clip_retrieval.build.embed import Embedder, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.on_a_gpu import GPU_BATCH, least_cosine
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders import find_gpu, load_encoder, load_on_gpu
from clip_retrieval.encoders.accelerator import Gpu
from clip_retrieval.encoders.base import Encoder, Pixels
from clip_retrieval.images.decode import Limits, decode_blob
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.records import CaptionedImage
from scripts.bench import collection
from scripts.bench.artifact import MODEL, random_weights
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import SAMPLE

FLOAT32 = "float32"


def main(given: Sequence[str] | None = None, find: Callable[[], Gpu | None] = find_gpu) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    arguments = parser.parse_args(given)
    gpu = find()
    if gpu is None:
        print(json.dumps(without_gpu()))
        return
    reference = prepare_encoder(
        arguments.model, arguments.pretrained or random_weights(arguments.model), runtime="torch"
    )
    encoders = {FLOAT32: load_encoder(reference), gpu.precision: load_on_gpu(reference, gpu.precision)}
    print(json.dumps(report(gpu, encoders, arguments.seconds)))


def without_gpu() -> dict[str, Any]:
    """What is said where there is no GPU."""
    return {"gpu": None, "reason": "torch sees no GPU, so nothing was measured", **_machine()}


def report(gpu: Gpu, encoders: dict[str, Encoder], seconds: float) -> dict[str, Any]:
    """Every figure; ``encoders`` are by precision, that of ``gpu`` last."""
    images = [item for item in open_source(SAMPLE) if isinstance(item, CaptionedImage)]
    texts = collection.queries(collection.sample_captions(SAMPLE), GPU_BATCH)
    pixels = _repeated(np.stack([encoders[FLOAT32].preprocess(decode_blob(one.blob)) for one in images]), GPU_BATCH)
    half = encoders[gpu.precision]
    figures: dict[str, Any] = {
        "images_per_s": {
            name: per_second(partial(one.encode_pixels, pixels), len(pixels), seconds) for name, one in encoders.items()
        },
        "texts_per_s": {
            name: per_second(partial(one.encode_texts, texts), len(texts), seconds) for name, one in encoders.items()
        },
        "build_per_s": per_second(_build(half, images), len(images), seconds),
    }
    table = Table("items a second", *encoders, title=gpu.name)
    for name in ("images_per_s", "texts_per_s"):
        table.add_row(name, *(f"{speed:.0f}" for speed in figures[name].values()))
    table.add_row("build_per_s", *[""] * (len(encoders) - 1), f"{figures['build_per_s']:.0f}")
    err.print(table)
    return {
        "gpu": gpu.name,
        "precision": gpu.precision,
        "memory_gb": round(gpu.memory / 1e9, 1),
        "model": half.info.name,
        **figures,
        "part": getattr(half, "part", None),
        "least_cosine": least_cosine(half.encode_pixels(pixels), encoders[FLOAT32].encode_pixels(pixels)),
        **_machine(),
    }


def per_second(work: Callable[[], object], items: int, seconds: float) -> float:
    """Items a second of ``work``, which does so many; the first time does not count."""
    work()
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < seconds:
        work()
        done += items
    return done / (time.perf_counter() - start)


def _build(encoder: Encoder, images: Sequence[CaptionedImage]) -> Callable[[], object]:
    def work() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(
                Embedder(lambda: encoder, encoder.info.dim, Path(folder), KnownArtifacts((), encoder.info), GPU_BATCH)
            ) as embedder,
        ):
            embed_images(images, embedder, Limits(), in_processes=True)

    return work


def _repeated(pixels: Pixels, count: int) -> Pixels:
    return np.ascontiguousarray(np.resize(pixels, (count, *pixels.shape[1:])))


def _machine() -> dict[str, Any]:
    return {"machine": {"cpu": cpu(), "cores": usable_cores()}, "commit": commit()}


if __name__ == "__main__":
    main()
