"""An encoder alone, computed in every way that it may be, with the instructions of this CPU and of lesser ones.

    python -m scripts.bench_isa                 # ViT-B/32 with random weights; a quarter of an hour with AMX
    python -m scripts.bench_isa --short         # does it work? (not: how fast) the demo; a minute
    python -m scripts.bench_isa --sets AVX2,AVX512_CORE_BF16

``ONEDNN_MAX_CPU_ISA`` (https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html) keeps oneDNN,
which computes the matrix products, from instructions that this CPU has and others have not. What OpenVINO computes
itself still uses them, and clock and caches are this CPU's: a lesser set is a model of a lesser CPU.

A way is a graph (f32 or 8 bits), the type of what is in floating point (bfloat16 where the set has it), the number of
streams, and the longest part of a batch. Batches are those of the README's table: 64 texts, 16 images. *Served* is the
way that the service takes (``clip_retrieval/encoders/openvino/encoder.py``). Prints a table on standard error and one
JSON line last.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from clip_retrieval.build.check import calibration
from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders.openvino.encoder import IMAGES_AT_ONCE, PADDED_TEXTS_AT_ONCE, TEXTS_AT_ONCE
from clip_retrieval.encoders.openvino.instructions import AMX, bfloat16_is_fast
from clip_retrieval.encoders.openvino.spec import read_spec
from clip_retrieval.images.decode import DEFAULT_LIMITS
from clip_retrieval.models.prepare import DEMO, prepare_encoder
from scripts.bench.artifact import MODEL, random_weights
from scripts.bench.isa_child import GRAPHS, PARTS
from scripts.bench_serving import queries_file
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import ROOT, SAMPLE

SETS = {
    "AVX2": "avx2",
    "AVX512_CORE": "avx512f",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_AMX": "amx_bf16",
}
"""By oneDNN's name of a set of instructions, from the least: a flag that the CPU has where it has the set."""
FULL = "AVX512_CORE_AMX"
WITH_BF16 = ("AVX512_CORE_BF16", FULL)
SECONDS = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--sets", default="", help=f"some of {', '.join(SETS)}; by default those that the CPU has")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds of each way")
    parser.add_argument("--short", action="store_true", help="the demo, one set, for a moment")
    arguments = parser.parse_args()
    own = [name for name, flag in SETS.items() if flag in cpu()]
    if not own:
        parser.error(f"this CPU has none of the sets that are compared: {', '.join(SETS)}")
    sets = [name for name in arguments.sets.split(",") if name] or own
    if lacking := sorted({*sets} - {*own}):
        parser.error(f"--sets: this CPU lacks {', '.join(lacking)}; it has {', '.join(own)}")
    if arguments.short:
        arguments.model, arguments.seconds, sets = DEMO, 0.1, sets[-1:]
    weights = random_weights(arguments.model) if arguments.model == MODEL else None
    to_quantise = calibration(open_source(SAMPLE), DEFAULT_LIMITS)
    encoder = prepare_encoder(arguments.model, arguments.pretrained or weights, calibration=to_quantise)
    found = {name: measure(encoder, name, arguments.seconds) for name in sets}
    show(found)
    machine = {"cpu": cpu(), "cores": usable_cores()}
    print(json.dumps({"model": arguments.model, "sets": found, "machine": machine, "commit": commit()}))


def measure(encoder: Path, name: str, seconds: float) -> list[dict[str, Any]]:
    """Every way with the instructions of one set; those of a tower from the fastest."""
    types = ["f32", "bf16"] if name in WITH_BF16 else ["f32"]
    longest = {
        "text": TEXTS_AT_ONCE if read_spec(encoder).text_layout == "prefixes" else PADDED_TEXTS_AT_ONCE,
        "image": IMAGES_AT_ONCE,
    }
    count = sum(len(parts) for parts in PARTS.values()) * len(GRAPHS) * len(types) * len({1, usable_cores()})
    with queries_file() as queries, Bars().stage(name, count) as advance:
        command = [sys.executable, "-m", "scripts.bench.isa_child", str(encoder), str(queries)]
        command += [str(seconds), ",".join(types)]
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": name}
        ways = []
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout or ():
                ways.append(json.loads(line))
                ways[-1]["served"] = is_served(ways[-1], name, longest)
                advance(1)
    if child.returncode:
        raise SystemExit(f"the encoder could not be measured with {name}; the reason is above")
    return sorted(ways, key=lambda way: (way["tower"], -way["per_s"]))


def is_served(way: dict[str, Any], name: str, longest: Mapping[str, int]) -> bool:
    """Whether the service computes so with the set of this name, with ``auto`` or with 8 bits.

    ``longest`` has the longest part of a batch of each tower.
    """
    fast = name in WITH_BF16 and bfloat16_is_fast(without=() if name == FULL else (AMX,))
    kind = "bf16" if fast and way["graph"] == "f32" else "f32"
    return bool((way["type"], way["streams"], way["part"]) == (kind, 1, longest[way["tower"]]))


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    """A line for each set, tower and graph: the way that is served, and the fastest."""
    table = Table("set", "tower", "graph", "served", "/s", "fastest", "/s", "served of fastest", title=cpu())
    for name, ways in found.items():
        for tower in PARTS:
            for graph in GRAPHS:
                some = [way for way in ways if (way["tower"], way["graph"]) == (tower, graph)]
                served, best = next(way for way in some if way["served"]), some[0]
                share = f"{served['per_s'] / best['per_s']:.0%}"
                cells = [described(served), f"{served['per_s']:.0f}", described(best), f"{best['per_s']:.0f}", share]
                table.add_row(name, tower, graph, *cells)
    err.print(table)


def described(way: dict[str, Any]) -> str:
    """A way in words, without its graph."""
    return f"{way['type']}, {way['streams']} stream{'s' if way['streams'] > 1 else ''}, parts of {way['part']}"


if __name__ == "__main__":
    main()
