"""Compares every combination of numbers of workers and of encoder threads on this machine.

    python -m scripts.bench_threads                  # ViT-B/32 with random weights, 1 and 2 of each; about six minutes
    python -m scripts.bench_threads --workers 1,2,4 --threads 1,2,4,8 --rounds 3

It starts the service of ``bench_serving.py`` with its collection and its clients; rounds alternate. It prints a table
on standard error and one JSON line last.
"""

import argparse
import itertools
import json

import numpy as np
from rich.table import Table

from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.models.prepare import prepare_encoder
from scripts.bench.artifact import MODEL, make_artifact, random_weights
from scripts.bench_serving import LOADS, OFFSET, queries_file, run_clients, served
from scripts.common.console import err
from scripts.common.machine import commit, cpu, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--workers", default="1,2", help="numbers of workers, separated by commas")
    parser.add_argument("--threads", default="1,2", help="numbers of threads of each encoder, separated by commas")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, whose medians count")
    parser.add_argument("--seconds", type=float, default=8, help="seconds of each measurement")
    arguments = parser.parse_args()
    pretrained = arguments.pretrained or random_weights(arguments.model)
    encoder = prepare_encoder(arguments.model, pretrained)
    artifact = make_artifact(encoder)
    numbers = [[int(part) for part in text.split(",")] for text in (arguments.workers, arguments.threads)]
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    ways = list(itertools.product(*numbers))
    with queries_file() as queries, Bars().stage("measuring", arguments.rounds * len(ways)) as advance:
        for _ in range(arguments.rounds):
            for workers, threads in ways:
                kept = found.setdefault((workers, threads), {})
                settings = {"workers": str(workers), "encoder_threads": str(threads)}
                with served("service", encoder, artifact, **settings) as server:
                    for part, (kind, clients) in enumerate(LOADS):
                        run = run_clients(server.url, kind, clients, arguments.seconds, queries, offset=part * OFFSET)
                        label = f"{kind} {clients}"
                        kept.setdefault(f"{label} per_s", []).append(run["requests"] / run["seconds"])
                        kept.setdefault(f"{label} p50_ms", []).append(float(np.median(run["latencies_ms"])))
                        kept.setdefault(f"{label} search_p99_ms", []).append(float(np.percentile(run["search_ms"], 99)))
                    kept.setdefault("rss_mb", []).append(memory(server.pid)["rss_mb"])
                    advance(1)
    rows = [
        {"workers": workers, "threads": threads} | {name: float(np.median(values)) for name, values in kept.items()}
        for (workers, threads), kept in found.items()
    ]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4g}" for value in row.values()))
    err.print(table)
    print(json.dumps({"rows": rows, "machine": {"cpu": cpu(), "cores": usable_cores()}, "commit": commit()}))


if __name__ == "__main__":
    main()
