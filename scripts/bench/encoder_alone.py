"""Measures an artifact's encoder and matrix products while nothing else runs; prints one JSON object."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cores import usable_cores
from scripts.bench.matrix_peak import matrix_peak_gflops

BATCH = 32


def per_second(work: Callable[[int], object], seconds: float) -> float:
    """Items a second of ``work(number)``, which does one batch; the first two batches do not count."""
    work(0)
    work(1)
    start, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        work(done)
        done += 1
    return BATCH * done / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("queries", type=Path, help="JSON list of texts")
    parser.add_argument("--precision", default="auto", choices=("auto", "f32", "int8"))
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    encoder = Artifact.open(arguments.artifact, verify=False).encoder(precision=arguments.precision)
    texts: list[str] = json.loads(arguments.queries.read_text())
    batches = [texts[at : at + BATCH] for at in range(0, len(texts) - BATCH, BATCH)]
    pixels = np.zeros((BATCH, 3, *encoder.info.image_size), np.float32)
    result = {
        "text_per_s": per_second(lambda n: encoder.encode_texts(batches[n % len(batches)]), arguments.seconds),
        "image_per_s": per_second(lambda _: encoder.encode_pixels(pixels), arguments.seconds),
        "matrix_peak_gflops": matrix_peak_gflops(usable_cores(), arguments.seconds / 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
