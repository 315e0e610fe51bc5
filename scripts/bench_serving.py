"""This service beside a baseline, in one run: same weights, same queries, same collection, alternating rounds.

    python -m scripts.bench_serving                       # ViT-B/32 with random weights; about 15 minutes
    python -m scripts.bench_serving --short               # does it work? (not: how fast); about 2 minutes
    python -m scripts.bench_serving --model ViT-B-32 --pretrained laion2b_s34b_b79k

The baseline is what a notebook project puts behind FastAPI (``scripts/bench/reference.py``). This service is measured
at each of ``--precisions``; the JSON has the first at the top and each other below its name. Speed does not depend on
the weights, so random ones serve where no model hub can be reached. The collection has 8,091 images and 40,455 captions
with CLIP-like vectors (``scripts/bench/collection.py``). Clients are in a process of their own on the same machine, and
both sides pay for them. Prints tables on standard error and one JSON line last:

    …_ratio                  median over the rounds of this service divided by the baseline (``text_p50_ratio``: of a
                             lone client's median latency, lower is better)
    search_p50_ms            the search stage of ``/search/images`` and ``/search/text`` under load
    served_to_encoder_ratio  texts a second of the service by those of the encoder alone in batches of 32, measured in
                             the same round; served_to_encoder_image_ratio is that of images
    matrix_peak_gflops       what OpenVINO multiplies in the precision ``auto``, two matrices of 2,048 × 2,048
    image_of_peak_ratio      the operations of the images that the encoder alone does a second, as a share of that;
                             at 8 bits it may be above 1. None for a model that models/catalogue.py lacks
    composed_search_p50_ms   the search stage of ``/search`` under load; the baseline has no such route
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.table import Table

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import calibration
from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.images.decode import Limits
from clip_retrieval.models.catalogue import entries
from clip_retrieval.models.prepare import prepare_encoder
from scripts.bench import collection
from scripts.bench.artifact import MODEL, make_artifact, random_weights
from scripts.common.console import err
from scripts.common.machine import commit, cpu, memory
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import NotReady, Served, bentoml_serve, serving

REFERENCE = "reference"
TEXT_CLIENTS, IMAGE_CLIENTS = 64, 16
LOADS = (("text", TEXT_CLIENTS), ("image", IMAGE_CLIENTS), ("text", 1), ("composed", TEXT_CLIENTS))
"""What is asked, and by how many clients at once; see ``scripts/bench/client.py``."""
QUERIES = 80_000
OFFSET = QUERIES // len(LOADS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="model, as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--precisions", default="int8,auto", help="precisions of this service, separated by commas")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, whose medians count")
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each measurement")
    parser.add_argument("--short", action="store_true", help="one round of 3 s, one precision, a small collection")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.seconds, arguments.precisions = 1, 3.0, "auto"
    precisions = arguments.precisions.split(",")
    if unknown := {*precisions} - {"auto", "f32", "int8"}:
        parser.error(f"--precisions: there is no {', '.join(sorted(unknown))}; choose from auto, f32, int8")
    pretrained = arguments.pretrained or random_weights(arguments.model)
    reference_model = prepare_encoder(arguments.model, pretrained, runtime="torch")
    limits = Limits()
    to_quantise = calibration(open_source(SAMPLE), limits) if "int8" in precisions else None
    served_model = prepare_encoder(arguments.model, pretrained, calibration=to_quantise)
    artifact = make_artifact(served_model, 500 if arguments.short else collection.IMAGES)
    result = measure(precisions, arguments.rounds, arguments.seconds, reference_model, artifact)
    print(json.dumps(result))
    sys.exit(1 if result["failed"] else 0)


def measure(
    precisions: list[str], count: int, seconds: float, reference_model: Path, artifact: Artifact
) -> dict[str, Any]:
    """Every measurement of every side, ``count`` times in turn; the figures of the first precision are at the top."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    facts: dict[str, list[dict[str, float]]] = {}
    sides = (REFERENCE, *precisions)
    runs = sum(len(loads_of(side)) for side in sides) + 1
    with queries_file() as queries, Bars().stage("measuring", count * runs) as advance:
        for _ in range(count):
            for side in sides:
                settings = {} if side == REFERENCE else {"precision": side}
                with served(side, reference_model, artifact, **settings) as server:
                    for part, (kind, clients) in enumerate(loads_of(side)):
                        counts_batches = side != REFERENCE and (kind, clients) == ("text", TEXT_CLIENTS)
                        before = text_batches(server.url) if counts_batches else None
                        # Each load asks other queries than the loads before it, so no cache can help.
                        found = run_clients(server.url, kind, clients, seconds, queries, offset=part * OFFSET)
                        rounds.setdefault(f"{side} {kind} {clients}", []).append(found)
                        advance(1)
                        if before is not None:
                            found["mean_batch"] = mean_batch(before, text_batches(server.url))
                    facts.setdefault(side, []).append({"ready_s": server.ready_s, **memory(server.pid)})
            for precision in precisions:
                alone = encoder_alone(artifact, queries, precision, seconds / 2)
                rounds.setdefault(f"encoder alone {precision}", []).append(alone)
            advance(1)
    show(rounds)
    first, *others = (compared(precision, rounds, facts, artifact.manifest.encoder.name) for precision in precisions)
    return {
        **first,
        "failed": sum(side["failed"] for side in (first, *others)),
        **{other["precision"]: other for other in others},
        REFERENCE: figures(REFERENCE, rounds, facts),
        "index_mb": index_mb(artifact),
        "indexes": {
            name: built.facts(exclude_none=True)
            for name, built in (("images", artifact.manifest.images), ("captions", artifact.manifest.captions))
        },
        "model": artifact.manifest.encoder.name,
        "rounds": count,
        "seconds": seconds,
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }


def loads_of(side: str) -> list[tuple[str, int]]:
    """The kinds of requests to a side and their clients; the baseline has no composed searches."""
    return [(kind, clients) for kind, clients in LOADS if side != REFERENCE or kind != "composed"]


def compared(
    precision: str, rounds: dict[str, list[dict[str, Any]]], facts: dict[str, list[dict[str, float]]], model: str
) -> dict[str, Any]:
    """This service at one precision beside the baseline and beside its own encoder."""
    ours, theirs = figures(precision, rounds, facts), figures(REFERENCE, rounds, facts)
    text = f"{precision} text {TEXT_CLIENTS}"
    busy = (text, f"{precision} image {IMAGE_CLIENTS}")
    searches = np.concatenate([run["search_ms"] for name in busy for run in rounds[name]])
    composed = rounds[f"{precision} composed {TEXT_CLIENTS}"]
    composed_searches = np.concatenate([run["search_ms"] for run in composed])
    alone = rounds[f"encoder alone {precision}"]
    names = ("text_per_s", "image_per_s", "matrix_peak_gflops")
    encoder = {name: float(np.median([run[name] for run in alone])) for name in names}
    peak, operations = encoder["matrix_peak_gflops"], image_gflops(model)
    return {
        "precision": precision,
        "text_throughput_ratio": ratio(ours["text_per_s"], theirs["text_per_s"]),
        "image_throughput_ratio": ratio(ours["image_per_s"], theirs["image_per_s"]),
        "text_p50_ratio": ratio(ours["lone_text_p50_ms"], theirs["lone_text_p50_ms"]),
        "served_to_encoder_ratio": ours["text_per_s"] / encoder["text_per_s"],
        "served_to_encoder_image_ratio": ours["image_per_s"] / encoder["image_per_s"],
        "matrix_peak_gflops": peak,
        "image_of_peak_ratio": None if operations is None else operations * encoder["image_per_s"] / peak,
        "failed": sum(run["failed"] for name, runs in rounds.items() if name.startswith(precision) for run in runs),
        "mean_batch": float(np.median([run["mean_batch"] for run in rounds[text]])),
        "search_p50_ms": float(np.percentile(searches, 50)),
        "search_p99_ms": float(np.percentile(searches, 99)),
        "composed_per_s": float(np.median([run["requests"] / run["seconds"] for run in composed])),
        "composed_search_p50_ms": float(np.percentile(composed_searches, 50)),
        "composed_search_p99_ms": float(np.percentile(composed_searches, 99)),
        "ready_s": ours["ready_s"],
        "rss_mb": ours["rss_mb"],
        "anonymous_mb": ours["anonymous_mb"],
        "encoder_text_per_s": encoder["text_per_s"],
        "encoder_image_per_s": encoder["image_per_s"],
        "service": ours,
    }


def image_gflops(model: str) -> float | None:
    """10⁹ operations for one image, where the table of models has the one that an encoder's name begins with."""
    name = model.split(" ", maxsplit=1)[0]
    return next((entry.image_gflops for entry in entries() if entry.model == name), None)


def ratio(ours: float, theirs: float) -> float | None:
    """``ours / theirs``; None if the baseline was too slow to give one answer in the time of a measurement."""
    return ours / theirs if theirs > 0 else None


def figures(
    side: str, rounds: dict[str, list[dict[str, Any]]], facts: dict[str, list[dict[str, float]]]
) -> dict[str, float]:
    """Medians over the rounds of one side."""

    def throughput(kind: str, clients: int) -> float:
        return float(np.median([run["requests"] / run["seconds"] for run in rounds[f"{side} {kind} {clients}"]]))

    def p50(clients: int) -> float:
        return float(np.median([np.median(run["latencies_ms"]) for run in rounds[f"{side} text {clients}"]]))

    latencies = np.concatenate([run["latencies_ms"] for run in rounds[f"{side} text {TEXT_CLIENTS}"]])
    return {
        "text_per_s": throughput("text", TEXT_CLIENTS),
        "image_per_s": throughput("image", IMAGE_CLIENTS),
        "lone_text_p50_ms": p50(1),
        "text_p50_ms": p50(TEXT_CLIENTS),
        "text_p99_ms": float(np.percentile(latencies, 99)),
        **{name: float(np.median([fact[name] for fact in facts[side]])) for name in facts[side][0]},
    }


@contextlib.contextmanager
def queries_file() -> Iterator[Path]:
    """A JSON file of more texts than any measurement needs."""
    with tempfile.TemporaryDirectory() as scratch:
        queries = Path(scratch) / "queries.json"
        queries.write_text(json.dumps(collection.queries(collection.sample_captions(SAMPLE), QUERIES)))
        yield queries


@contextlib.contextmanager
def served(side: str, reference_model: Path, artifact: Artifact, **settings: str) -> Iterator[Served]:
    """The baseline (``reference``) or this service while it is up.

    ``settings`` are those of ``clip_retrieval/serving/settings.py``.
    """
    environment = {"BENTOML_DO_NOT_TRACK": "True"}
    environment |= {f"BENTO_CLIP_{name.upper()}": value for name, value in settings.items()}
    environment |= {"BENTO_CLIP_ARTIFACT": str(artifact.path)}

    def command(port: int) -> list[str]:
        if side != REFERENCE:
            return bentoml_serve(port)
        words = ["scripts.bench.reference", str(reference_model), str(artifact.path), str(port)]
        return [sys.executable, "-m", *words]

    try:
        with serving(command, environment=environment, ready_path="/health") as server:
            yield server
    except NotReady as error:
        sys.exit(f"{side}: {error}")


def run_clients(url: str, kind: str, clients: int, seconds: float, queries: Path, *, offset: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.bench.client", url, kind, "--clients", str(clients)]
    command += ["--seconds", str(seconds), "--queries", str(queries), "--images", str(SAMPLE / "images")]
    done = subprocess.run([*command, "--offset", str(offset)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def encoder_alone(artifact: Artifact, queries: Path, precision: str, seconds: float) -> dict[str, Any]:
    """Texts and images a second of the encoder in batches of 32, in a process of its own, while nothing else runs."""
    command = [sys.executable, "-m", "scripts.bench.encoder_alone", str(artifact.path), str(queries)]
    command += ["--precision", precision, "--seconds", str(seconds)]
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return found


def text_batches(url: str) -> tuple[float, float]:
    """How many texts and batches of texts BentoML's histogram has counted."""
    response = httpx.get(f"{url}/metrics", timeout=60, trust_env=False).raise_for_status()
    pattern = r'^bentoml_service_adaptive_batch_size_{}{{method_name="encode_texts".*}} ([\d.e+]+)$'
    found = [re.search(pattern.format(name), response.text, re.M) for name in ("sum", "count")]
    total, count = (float(match[1]) if match else 0.0 for match in found)
    return total, count


def mean_batch(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Texts a batch between two answers of ``text_batches``."""
    return (after[0] - before[0]) / max(1.0, after[1] - before[1])


def index_mb(artifact: Artifact) -> float:
    """Size in MB of both indexes in memory: the file of a graph, or the vectors of a flat index."""
    total = 0
    for name, built in (("images", artifact.manifest.images), ("captions", artifact.manifest.captions)):
        file = artifact.path / f"{name}.{'npy' if built.spec.exact else 'faiss'}"
        total += file.stat().st_size
    return total / 1e6


def show(rounds: dict[str, list[dict[str, Any]]]) -> None:
    table = Table("what", "round", "per s", "p50 ms", "p95 ms", "p99 ms", "failed")
    for name, runs in rounds.items():
        for number, run in enumerate(runs, 1):
            if "latencies_ms" in run:
                points = [f"{v:.1f}" for v in np.percentile(run["latencies_ms"] or [np.nan], [50, 95, 99])]
                table.add_row(name, f"{number}", f"{run['requests'] / run['seconds']:.1f}", *points, f"{run['failed']}")
            else:
                table.add_row(f"{name}, texts", f"{number}", f"{run['text_per_s']:.1f}")
                table.add_row(f"{name}, images", f"{number}", f"{run['image_per_s']:.1f}")
    err.print(table)


if __name__ == "__main__":
    main()
