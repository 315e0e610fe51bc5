"""Bulk embedding, as ``bento-clip build`` does it, beside the encoder alone on data that is in memory already.

    python -m scripts.bench_embedding                      # ViT-B/32 with random weights; about two minutes
    python -m scripts.bench_embedding --rounds 1 --images 64 --texts 256

``build`` reads, decodes, checks and resizes images beside the encoder and writes vectors to disk; the encoder alone
only encodes, in batches of the same size. Every image and text of a round is distinct, since a build encodes equal ones
once. Rounds alternate. Tables on standard error, one JSON line last; ``…_ratio`` is the median over the rounds of
build's speed divided by the encoder's.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.table import Table

from clip_retrieval.build.embed import IMAGE_BATCH, TEXT_BATCH, Embedder, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders import load_encoder
from clip_retrieval.encoders.base import Encoder
from clip_retrieval.images.decode import Limits, decode_blob
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.records import CaptionedImage
from scripts.bench import collection
from scripts.bench.artifact import MODEL, random_weights
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import SAMPLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=200, help="a round; at most the bundled ones")
    parser.add_argument("--texts", type=int, default=2560, help="a round")
    arguments = parser.parse_args()
    pretrained = arguments.pretrained or random_weights(arguments.model)
    encoder = load_encoder(prepare_encoder(arguments.model, pretrained))

    images = [item for item in open_source(SAMPLE) if isinstance(item, CaptionedImage)][: arguments.images]
    texts = list(dict.fromkeys(collection.queries(collection.sample_captions(SAMPLE), arguments.texts)))
    pixels = np.stack([encoder.preprocess(decode_blob(image.blob)) for image in images[:IMAGE_BATCH]])

    def embedder(work: Path) -> closing[Embedder]:
        return closing(Embedder(lambda: encoder, encoder.info.dim, work, KnownArtifacts((), encoder.info)))

    def build_images(work: Path) -> None:
        with embedder(work) as ready:
            embed_images(images, ready, Limits())

    def build_texts(work: Path) -> None:
        with embedder(work) as ready:
            ready.embed_captions(texts)

    ways = {
        "images, build": (len(images), build_images),
        "images, encoder alone": (len(images), lambda _: encode_pixels(encoder, pixels, len(images))),
        "captions, build": (len(texts), build_texts),
        "captions, encoder alone": (len(texts), lambda _: encode_texts(encoder, texts)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with Bars().stage("measuring", arguments.rounds * len(ways)) as advance:
        for _ in range(arguments.rounds):
            for name, (count, work) in ways.items():
                speeds[name].append(count / seconds(work))
                advance(1)
    table = Table("what", *(f"round {number}" for number in range(1, arguments.rounds + 1)), title="items a second")
    for name, found in speeds.items():
        table.add_row(name, *(f"{speed:.1f}" for speed in found))
    err.print(table)

    def median_ratio(kind: str) -> float:
        pairs = zip(speeds[f"{kind}, build"], speeds[f"{kind}, encoder alone"], strict=True)
        return float(np.median([build / alone for build, alone in pairs]))

    result = {
        "images_ratio": median_ratio("images"),
        "captions_ratio": median_ratio("captions"),
        "per_s": {name: float(np.median(found)) for name, found in speeds.items()},
        "model": encoder.info.name,
        "rounds": arguments.rounds,
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }
    print(json.dumps(result))


def encode_pixels(encoder: Encoder, pixels: np.ndarray, count: int) -> None:
    for start in range(0, count, IMAGE_BATCH):
        encoder.encode_pixels(pixels[: min(IMAGE_BATCH, count - start)])


def encode_texts(encoder: Encoder, texts: list[str]) -> None:
    for start in range(0, len(texts), TEXT_BATCH):
        encoder.encode_texts(texts[start : start + TEXT_BATCH])


def seconds(work: Callable[[Path], object]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        work(Path(folder))
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
