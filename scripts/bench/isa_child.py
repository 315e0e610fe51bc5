"""One process of the benchmark of instruction sets: an encoder's towers in every way that they may be computed.

    ONEDNN_MAX_CPU_ISA=AVX2 python -m scripts.bench.isa_child FOLDER QUERIES SECONDS f32,bf16

FOLDER is an encoder with graphs of 8 bits, QUERIES a JSON list of texts; the last argument names the types in which
what is in floating point may be computed. Prints one JSON line for each way.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders import read_info
from clip_retrieval.encoders.openvino.encoder import FLOAT_TYPES, float_settings
from clip_retrieval.encoders.openvino.layouts import GraphInputs, text_batch
from clip_retrieval.encoders.openvino.runtime import openvino
from clip_retrieval.encoders.openvino.spec import graph_file, read_spec
from clip_retrieval.encoders.openvino.tower import split_rows
from clip_retrieval.encoders.tokenizer import Tokenizer

BATCHES = {"text": 64, "image": 16}
"""How many items are encoded at once: the loads of the README's table."""
PARTS = {"text": (8, 16, 32), "image": (4, 8, 16)}
GRAPHS = ("f32", "int8")
ROUNDS = 3
"""Medians of so many measurements count."""

Inputs = Callable[[int], list[GraphInputs]]
"""The parts of a batch: given the longest part."""


def main() -> None:
    folder, queries, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    types = [kind for kind in FLOAT_TYPES if kind in sys.argv[4].split(",")]
    core, threads = openvino.Core(), usable_cores()
    inputs = {"text": text_inputs(folder, json.loads(queries.read_text())), "image": image_inputs(folder)}
    for tower, graph, kind, streams in itertools.product(BATCHES, GRAPHS, types, sorted({1, threads})):
        settings = float_settings(kind, threads) | {"NUM_STREAMS": streams}
        compiled = core.compile_model(folder / graph_file(tower, graph), "CPU", settings)
        for way in measured(openvino.AsyncInferQueue(compiled, streams), inputs[tower], tower, seconds):
            print(json.dumps({"graph": graph, "type": kind, "streams": streams} | way), flush=True)


def measured(queue: Any, inputs: Inputs, name: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Items a second of a tower, for each length of its parts; ``queue`` computes one in each stream."""
    for part in PARTS[name]:
        parts = inputs(part)
        rates = [rate(queue, parts, BATCHES[name], seconds / ROUNDS) for _ in range(ROUNDS)]
        yield {"tower": name, "part": part, "per_s": float(np.median(rates))}


def rate(queue: Any, parts: Sequence[GraphInputs], items: int, seconds: float) -> float:
    """Items a second, of a batch again and again; the first does not count."""
    run(queue, parts)
    start, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        run(queue, parts)
        done += 1
    return items * done / elapsed


def run(queue: Any, parts: Sequence[GraphInputs]) -> None:
    """Compute one batch."""
    for part in parts:
        queue.start_async(part, share_inputs=True)
    queue.wait_all()


def text_inputs(folder: Path, texts: Sequence[str]) -> Inputs:
    """A batch of texts, in the order in which the service computes them."""
    tokenizer, layout = Tokenizer.load(folder), read_spec(folder).text_layout
    ids = [tokenizer.tokenize(text).ids for text in texts[: BATCHES["text"]]]
    ids.sort(key=(lambda one: one) if layout == "prefixes" else (lambda one: (len(one),)))

    def inputs(part: int) -> list[GraphInputs]:
        rows = split_rows(np.arange(len(ids)), part)
        return [text_batch(tokenizer, layout, [ids[row] for row in some]) for some in rows]

    return inputs


def image_inputs(folder: Path) -> Inputs:
    """A batch of images; their content does not matter to the time."""
    pixels = np.random.default_rng(0).random((BATCHES["image"], 3, *read_info(folder).image_size), np.float32)

    def inputs(part: int) -> list[GraphInputs]:
        return [(pixels[some[0] : some[-1] + 1],) for some in split_rows(np.arange(len(pixels)), part)]

    return inputs


if __name__ == "__main__":
    main()
