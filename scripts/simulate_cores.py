"""How many texts a second a service answers on machines with more cores, by a simulation that is checked on this one.

    python -m scripts.simulate_cores                      # measures costs here, checks, then 1 to 32 cores; 4 minutes
    python -m scripts.simulate_cores --cores 8,64 --workers 1,2,4,8
    python -m scripts.simulate_cores --costs '{"loop_ms": 0.8, "text_ms": 2.1, "batch_ms": 0.4, "client_ms": 0.3}'

The costs are measured with ViT-B/32, random weights, and clients on the same cores: the encoder alone with one thread,
in batches of 1 and of 32 texts; the processor time of the worker and of its clients for each answer. Then the same
service is measured on one core and on all of them, and so is the simulation: ``simulated_to_measured`` says how far
they are apart. docs/serving.md has what was found. Prints tables on standard error and one JSON line last.

What the simulation (``scripts/bench/core_model.py``) assumes:

- Clients ask again as soon as they are answered. Beyond this machine's cores they are on another machine.
- Threads that want to run share the cores equally. A core does the same work whatever else runs: neither memory
  bandwidth nor the clock of a busy processor is modelled, so figures for many cores are bounds from above.
- An event loop does one thing at a time. Its work for an answer is half before and half after the encoder.
- A batch has at most 32 texts and is computed by all threads of its worker, which divide its work equally. The next one
  is prepared meanwhile.
- The kernel gives each new connection to a worker by chance: each has an equal share of the clients.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.models.prepare import prepare_encoder
from clip_retrieval.serving.process import share_cores
from clip_retrieval.serving.settings import Settings
from scripts.bench.artifact import MODEL, make_artifact, random_weights
from scripts.bench.core_model import Costs, Machine, simulate
from scripts.bench_serving import TEXT_CLIENTS, queries_file, run_clients, served
from scripts.common.console import err
from scripts.common.machine import commit, cpu
from scripts.common.paths import ROOT

CORES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", default=",".join(map(str, CORES)), help="numbers of cores, separated by commas")
    parser.add_argument("--workers", default="1,2,4,8", help="numbers of workers, separated by commas")
    parser.add_argument("--clients", type=int, default=4 * TEXT_CLIENTS, help="clients of the simulated machines")
    parser.add_argument("--costs", help="JSON of costs that were measured before; nothing is measured then")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each measurement")
    arguments = parser.parse_args()
    cores, workers = ([int(part) for part in text.split(",")] for text in (arguments.cores, arguments.workers))
    checks: list[dict[str, float]] = []
    if arguments.costs:
        costs = Costs(**json.loads(arguments.costs))
    else:
        costs, checks = measure(arguments.seconds)
    rows = [row(costs, count, each, arguments.clients) for count in cores for each in workers if each <= count]
    show(checks, "clients on the same cores")
    show(rows, f"{arguments.clients} clients elsewhere")
    machine = {"cpu": cpu(), "cores": usable_cores()}
    print(json.dumps({"costs": asdict(costs), "checks": checks, "rows": rows, "machine": machine, "commit": commit()}))


def row(costs: Costs, cores: int, workers: int, clients: int) -> dict[str, float]:
    """What the simulation says of one machine, with a thread a core as the service has them."""
    found = simulate(costs, Machine(cores, workers, max(1, cores // workers)), clients)
    is_rule = workers == share_cores(Settings(), cores)[0]
    return {"cores": cores, "workers": workers, "is_rule": is_rule, **asdict(found)}


def measure(seconds: float) -> tuple[Costs, list[dict[str, float]]]:
    """The costs on this machine, and measured beside simulated figures of its own cores."""
    encoder = prepare_encoder(MODEL, random_weights(MODEL))
    artifact = make_artifact(encoder)
    own = sorted(os.sched_getaffinity(0))
    counts = sorted({1, len(own)})
    with queries_file() as queries, Bars().stage("measuring", 1 + len(counts)) as advance:
        alone = one_thread(artifact.path, queries, seconds, own[0])
        advance(1)
        runs = {}
        for place, count in enumerate(counts):
            os.sched_setaffinity(0, own[:count])  # children inherit it
            with served("service", encoder, artifact, workers="1", encoder_threads=str(count)) as server:
                run_clients(server.url, "text", TEXT_CLIENTS, seconds / 2, queries, offset=place * 20_000)
                runs[count] = watched(server.pid, server.url, seconds, queries, offset=place * 20_000 + 10_000)
            os.sched_setaffinity(0, own)
            advance(1)
    whole = runs[counts[-1]]
    costs = Costs(
        loop_ms=max(0.0, whole["worker_ms"] - alone["text_ms"] - alone["batch_ms"] / 16),
        text_ms=alone["text_ms"],
        batch_ms=alone["batch_ms"],
        client_ms=whole["client_ms"],
    )
    checks = []
    for count in counts:
        found = simulate(costs, Machine(count, 1, count, has_clients=True), TEXT_CLIENTS)
        measured = runs[count]["per_s"]
        checks.append(
            {
                "cores": count,
                "measured_per_s": measured,
                "simulated_per_s": found.per_s,
                "simulated_to_measured": found.per_s / measured,
            }
        )
    return costs, checks


def one_thread(artifact: Path, queries: Path, seconds: float, core: int) -> dict[str, float]:
    """Milliseconds of a core that a text and a batch cost, from batches of 1 and of 32 texts on one core."""
    code = (
        "import json, sys; from pathlib import Path; from clip_retrieval.artifacts.artifact import Artifact; "
        "from scripts.bench.encoder_alone import BATCH, per_second; "
        "encoder = Artifact.open(Path(sys.argv[1]), verify=False).encoder(); "
        "texts = json.loads(Path(sys.argv[2]).read_text()); seconds = float(sys.argv[3]); "
        "many = per_second(lambda n: encoder.encode_texts(texts[n * BATCH : (n + 1) * BATCH]), seconds); "
        "one = per_second(lambda n: encoder.encode_texts(texts[n : n + 1]), seconds) / BATCH; "
        "print(json.dumps([1e3 / many, 1e3 / one]))"
    )
    pin = ["import os, sys", f"os.sched_setaffinity(0, [{core}])", f"exec({code!r})"]
    command = [sys.executable, "-c", "; ".join(pin), str(artifact), str(queries), str(seconds / 2)]
    many, one = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    batch = max(0.0, (one - many) * 32 / 31)
    return {"text_ms": many - batch / 32, "batch_ms": batch}


def watched(pid: int, url: str, seconds: float, queries: Path, *, offset: int) -> dict[str, float]:
    """Answers a second, and the processor time of the service and of its clients for each answer."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]

    def spent() -> tuple[float, float]:
        own = sum(sum(process.cpu_times()[:2]) for process in processes)
        return own, sum(psutil.Process().cpu_times()[2:4])

    (service, clients), began = spent(), time.perf_counter()
    run = run_clients(url, "text", TEXT_CLIENTS, seconds, queries, offset=offset)
    (service_after, clients_after), took = spent(), time.perf_counter() - began
    # The warm-up of the clients is paid for as well, and asks as many a second.
    answers = run["requests"] / run["seconds"] * took
    return {
        "per_s": run["requests"] / run["seconds"],
        "worker_ms": 1e3 * (service_after - service) / answers,
        "client_ms": 1e3 * (clients_after - clients) / answers,
    }


def show(rows: list[dict[str, Any]], title: str) -> None:
    if not rows:
        return
    table = Table(*rows[0], title=title)
    for one in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in one.values()))
    err.print(table)


if __name__ == "__main__":
    main()
