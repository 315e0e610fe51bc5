"""The one service beside the two, an encoder and a search (``split_service.py``), in one run.

    python -m scripts.bench_split                             # clip-retrieval:latest of the model store; two minutes
    python -m scripts.bench_split --artifact some/folder --seconds 10 --rounds 3

Both are up, and one after the other is asked, round by round, with nothing cached: texts by 64 clients, texts by one,
images by 16. ``cpu_ms`` is the processor time of all processes of a service for one answer, which other work on the
machine changes little; answers a second and latencies are of a machine that has to share its cores. ``times`` is what
two services take for what one takes 1 for. A table goes to standard error, one JSON line comes last.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from rich.table import Table

from scripts.common import machine
from scripts.common.console import err
from scripts.common.paths import SAMPLE
from scripts.common.server import Served, bentoml_serve, serving

SERVICES = {"one": "clip_retrieval.service:ClipRetrieval", "two": "clip_retrieval.split_service:ClipRetrieval"}
LOADS = {"texts, 64 clients": ("text", 64), "texts, 1 client": ("text", 1), "images, 16 clients": ("image", 16)}
FIGURES = ("per_s", "p50_ms", "p99_ms", "cpu_ms")
WARM_UP_S = 1.0
TEXTS = 200_000
"""As many texts as no run gets through: none comes twice."""


def processor_s(pid: int) -> float:
    """The processor time of a process and of all that it started, in seconds."""
    each = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(times.user + times.system for times in (process.cpu_times() for process in each))


def ask(served: Served, load: str, seconds: float, queries: Path, offset: int) -> dict[str, float]:
    """Answers a second, latencies and processor time of one service under one load."""
    kind, clients = LOADS[load]
    command = [sys.executable, "-m", "scripts.bench.client", served.url, kind, "--clients", str(clients)]
    command += ["--seconds", str(seconds), "--warm-up", str(WARM_UP_S), "--offset", str(offset)]
    command += ["--queries", str(queries), "--images", str(SAMPLE / "images")]
    before = processor_s(served.pid)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    took = processor_s(served.pid) - before
    found = json.loads(done.stdout.splitlines()[-1])
    per_s = found["requests"] / seconds
    p50, p99 = np.percentile(found["latencies_ms"], (50, 99))
    answered = per_s * (seconds + WARM_UP_S)  # those of the warm-up took time as well
    return {"per_s": per_s, "p50_ms": p50, "p99_ms": p99, "cpu_ms": took * 1e3 / answered, "failed": found["failed"]}


def rounds(servers: dict[str, Served], number: int, seconds: float, queries: Path) -> Iterator[dict[str, Any]]:
    offset = 0
    for load in LOADS:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for _ in range(number):
            for name, served in servers.items():
                runs[name].append(ask(served, load, seconds, queries, offset))
                offset += TEXTS // (2 * len(LOADS) * number)
        figures = {
            name: {key: round(float(median(run[key] for run in each)), 2) for key in FIGURES}
            for name, each in runs.items()
        }
        failed = int(sum(run["failed"] for each in runs.values() for run in each))
        times = {key: round(figures["two"][key] / figures["one"][key], 2) for key in figures["one"]}
        yield {"load": load, **figures, "times": times, "failed": failed}


def table(figures: Sequence[dict[str, Any]]) -> Table:
    shown = Table("load", "services", "answers/s", "p50 ms", "p99 ms", "processor ms an answer")
    for one in figures:
        for name in SERVICES:
            shown.add_row(one["load"], name, *(f"{value:,}" for value in one[name].values()))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", default="clip-retrieval:latest", help="a tag or a folder")
    parser.add_argument("--seconds", type=float, default=5, help="seconds of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, whose medians count")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        queries = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "queries.json"
        queries.write_text(json.dumps([f"a photograph of number {number}" for number in range(TEXTS)]))
        settings = {"BENTO_CLIP_ARTIFACT": arguments.artifact, "BENTO_CLIP_CACHE_SIZE": "0"}
        servers = {
            name: stack.enter_context(serving(partial(bentoml_serve, service=service), environment=settings))
            for name, service in SERVICES.items()
        }
        memory = {name: round(machine.memory(served.pid)["rss_mb"]) for name, served in servers.items()}
        figures = list(rounds(servers, arguments.rounds, arguments.seconds, queries))
    err.print(table(figures))
    about = {"cpu": machine.cpu(), "commit": machine.commit(), "load_average": round(os.getloadavg()[0], 1)}
    print(json.dumps({**about, "artifact": arguments.artifact, "memory_mb": memory, "loads": figures}))


if __name__ == "__main__":
    main()
