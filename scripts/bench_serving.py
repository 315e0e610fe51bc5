"""This service beside the usual way, in one run: same weights, same queries, same collection, alternating rounds.

    python scripts/bench_serving.py                       # ViT-B/32 with random weights; about 12 minutes
    python scripts/bench_serving.py --short               # does it work? (not: how fast); about 2 minutes
    python scripts/bench_serving.py --model ViT-B-32 --pretrained laion2b_s34b_b79k

This service is measured at each of ``--precisions``; the JSON has the first at the top and each other below its name.
Speed does not depend on the weights, so random ones serve where no model hub is in reach. The collection has 8,091
images and 40,455 captions with CLIP-like vectors (``scripts/bench/collection.py``). Clients are in a process of their
own on the same machine, which both sides pay for. Prints tables on standard error and one JSON line last; each
``…_ratio`` is the median over the rounds of this service divided by the usual way (``text_p50_ratio``: of a lone
client's median latency, lower is better).
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import DataInfo, artifact_version
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.build.check import calibration
from clip_retrieval.cli.console import Bars
from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets import open_source
from clip_retrieval.encoders import read_info
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.choose import choose_index
from clip_retrieval.models.prepare import cache_dir, prepare_encoder
from scripts.bench import collection
from scripts.machine import anonymous_mb, commit, cpu

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "clip_retrieval" / "sample"
TEXT_CLIENTS, IMAGE_CLIENTS = 64, 16
LOADS = (("text", TEXT_CLIENTS), ("image", IMAGE_CLIENTS), ("text", 1))
QUERIES = 60_000
OFFSET = QUERIES // len(LOADS)
err = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", help="as in bento-clip build")
    parser.add_argument("--pretrained", help="tag or checkpoint file; random weights if left out")
    parser.add_argument("--precisions", default="int8,auto", help="of this service, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
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
    """Every measurement of every side, ``count`` times in turn; what came of the first precision stands at the top."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    facts: dict[str, list[dict[str, float]]] = {}
    sides = ("reference", *precisions)
    with queries_file() as queries, Bars().stage("measuring", count * (len(sides) * len(LOADS) + 1)) as advance:
        for _ in range(count):
            for side in sides:
                settings = {} if side == "reference" else {"precision": side}
                with serving(side, reference_model, artifact, **settings) as (url, pid, ready_s):
                    for part, (kind, clients) in enumerate(LOADS):
                        before = text_batches(url)
                        # Each part asks what no other part of the server's life has asked: no cache can help.
                        found = run_clients(url, kind, clients, seconds, queries, offset=part * OFFSET)
                        rounds.setdefault(f"{side} {kind} {clients}", []).append(found)
                        advance(1)
                        if before is not None and clients == TEXT_CLIENTS:
                            found["mean_batch"] = mean_batch(before, text_batches(url))
                    facts.setdefault(side, []).append({"ready_s": ready_s, **memory(pid)})
            for precision in precisions:
                alone = encoder_alone(artifact, queries, precision, seconds / 2)
                rounds.setdefault(f"encoder alone {precision}", []).append(alone)
            advance(1)
    show(rounds)
    first, *others = (compared(precision, rounds, facts) for precision in precisions)
    return {
        **first,
        "failed": sum(one["failed"] for one in (first, *others)),
        **{other["precision"]: other for other in others},
        "reference": figures("reference", rounds, facts),
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


def compared(
    precision: str, rounds: dict[str, list[dict[str, Any]]], facts: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """This service at one precision beside the usual way and beside its own encoder."""
    ours, theirs = figures(precision, rounds, facts), figures("reference", rounds, facts)
    text = f"{precision} text {TEXT_CLIENTS}"
    busy = (text, f"{precision} image {IMAGE_CLIENTS}")
    searches = np.concatenate([run["search_ms"] for name in busy for run in rounds[name]])
    alone = rounds[f"encoder alone {precision}"]
    encoder = {name: float(np.median([run[name] for run in alone])) for name in ("text_per_s", "image_per_s")}
    return {
        "precision": precision,
        "text_throughput_ratio": ours["text_per_s"] / theirs["text_per_s"],
        "image_throughput_ratio": ours["image_per_s"] / theirs["image_per_s"],
        "text_p50_ratio": ours["lone_text_p50_ms"] / theirs["lone_text_p50_ms"],
        "served_to_encoder_ratio": ours["text_per_s"] / encoder["text_per_s"],
        "failed": sum(run["failed"] for name, runs in rounds.items() if name.startswith(precision) for run in runs),
        "mean_batch": float(np.median([run["mean_batch"] for run in rounds[text]])),
        "search_p50_ms": float(np.percentile(searches, 50)),
        "search_p99_ms": float(np.percentile(searches, 99)),
        "ready_s": ours["ready_s"],
        "rss_mb": ours["rss_mb"],
        "anonymous_mb": ours["anonymous_mb"],
        "encoder_text_per_s": encoder["text_per_s"],
        "encoder_image_per_s": encoder["image_per_s"],
        "service": ours,
    }


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
    """A JSON file of more texts than any measurement asks for."""
    with tempfile.TemporaryDirectory() as scratch:
        queries = Path(scratch) / "queries.json"
        queries.write_text(json.dumps(collection.queries(collection.sample_captions(SAMPLE), QUERIES)))
        yield queries


def random_weights(model: str) -> str:
    """A checkpoint file of the model with seeded random weights."""
    path = cache_dir() / "bench" / f"{model}-random.pt"
    if not path.exists():
        import torch

        from clip_retrieval.encoders.open_clip import open_clip

        torch.manual_seed(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(open_clip.create_model(model).state_dict(), path)
    return str(path)


def make_artifact(encoder: Path, images: int = collection.IMAGES) -> Artifact:
    """The artifact of the synthetic collection, built once and kept in the cache."""
    info = read_info(encoder)
    captions = images * collection.CAPTIONS_EACH
    data = DataInfo(
        name="synthetic",
        fingerprint=f"clip-like {images}",
        images=images,
        captions=captions,
        rejected=0,
        splits={"train": images, "val": 0, "test": 0},
        split_ratios=(1.0, 0.0, 0.0),
        split_seed=0,
    )
    version = artifact_version(info, data, 0.99)
    target = cache_dir() / "bench" / version
    if target.exists():
        (target / "encoder").unlink()
        (target / "encoder").symlink_to(encoder)  # the one that it was made with may be gone from the cache
        return Artifact.open(target)
    with err.status(f"building indexes of {images} images and {captions} captions"):
        image_vectors, texts = collection.clip_like(images, collection.CAPTIONS_EACH, info.dim)
        image_index = choose_index(image_vectors, texts, query_kind="captions")
        caption_index = choose_index(texts, image_vectors, query_kind="images")

    def fill(folder: Path) -> None:
        (folder / "encoder").symlink_to(encoder)
        for name, vectors, chosen in (("images", image_vectors, image_index), ("captions", texts, caption_index)):
            np.save(folder / f"{name}.npy", vectors)
            chosen.index.save(folder / f"{name}.faiss")
        with RecordStore.create(folder / "records.sqlite") as store:
            store.add(*collection.records(collection.sample_captions(SAMPLE), images, collection.CAPTIONS_EACH))

    return write_artifact(
        target,
        version=version,
        encoder=info,
        data=data,
        images=image_index.built,
        captions=caption_index.built,
        fill=fill,
    )


@contextlib.contextmanager
def serving(side: str, reference_model: Path, artifact: Artifact, **settings: str) -> Iterator[tuple[str, int, float]]:
    """The usual way (``reference``) or this service while it is up: URL, root process id, seconds until it was ready.

    ``settings`` are those of ``clip_retrieval/config.py``.
    """
    port = free_port()
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "True"}
    environment |= {f"BENTO_CLIP_{name.upper()}": value for name, value in settings.items()}
    if side == "reference":
        command = ["-m", "scripts.bench.reference", str(reference_model), str(artifact.path), str(port)]
    else:
        command = ["-m", "bentoml", "serve", "service:ClipRetrieval", "--host", "127.0.0.1", "--port", str(port)]
        environment["BENTO_CLIP_ARTIFACT"] = str(artifact.path)
    started = time.monotonic()
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
    child = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(f"{url}/health"):
            if child.poll() is not None:
                log.seek(0)
                sys.exit(f"the {side} server ended at once:\n{log.read().decode()[-2000:]}")
            time.sleep(0.05)
        yield url, child.pid, time.monotonic() - started
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)
        log.close()


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def run_clients(url: str, kind: str, clients: int, seconds: float, queries: Path, *, offset: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.bench.client", url, kind, "--clients", str(clients)]
    command += ["--seconds", str(seconds), "--queries", str(queries), "--images", str(SAMPLE / "images")]
    done = subprocess.run([*command, "--offset", str(offset)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def encoder_alone(artifact: Artifact, queries: Path, precision: str, seconds: float) -> dict[str, Any]:
    """Texts and images a second of the encoder in batches of 32, in a process of its own with nothing beside it."""
    command = [sys.executable, "-m", "scripts.bench.encoder_alone", str(artifact.path), str(queries)]
    command += ["--precision", precision, "--seconds", str(seconds)]
    found: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return found


def text_batches(url: str) -> tuple[float, float] | None:
    """How many texts and how many batches of them BentoML's histogram has counted; None where there is none."""
    response = httpx.get(f"{url}/metrics", timeout=5, trust_env=False)
    pattern = r'^bentoml_service_adaptive_batch_size_{}{{method_name="encode_texts".*}} ([\d.e+]+)$'
    found = [re.search(pattern.format(name), response.text, re.M) for name in ("sum", "count")]
    total, count = (float(match[1]) if match else 0.0 for match in found)
    return (total, count) if response.is_success else None


def mean_batch(before: tuple[float, float], after: tuple[float, float] | None) -> float:
    assert after is not None, "the service had metrics a moment ago"
    return (after[0] - before[0]) / max(1.0, after[1] - before[1])


def memory(pid: int) -> dict[str, float]:
    """Resident memory in MB of the process and all below it: in all, pages they share counted once, and what of it
    the kernel cannot drop, because it is no file's."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        "rss_mb": sum(process.memory_full_info().pss for process in processes) / 1e6,
        "anonymous_mb": sum(anonymous_mb(process.pid) for process in processes),
    }


def index_mb(artifact: Artifact) -> float:
    """What both indexes hold in memory: a graph's file, or a flat index's vectors."""
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
