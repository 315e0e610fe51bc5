"""A collection that changes while it is served: how fast, how soon visible, what it costs searches, what is lost.

    python -m scripts.bench_live --short                  # does it work? (not: how fast); about 2 minutes
    python -m scripts.bench_live                          # the bundled photographs and 10,000 changed images; 5 minutes
    python -m scripts.bench_live --images 100000          # the synthetic collection of the other benchmarks instead
    python -m scripts.bench_live --swaps 100 --kills 20   # more of what must never happen

Real servers with two workers each and the demo model: one that is frozen; one whose log already has ``--added`` images
and has removed 5 % of the artifact's; one that swaps; one that is killed. Prints a progress bar on standard error and
one JSON line last:

    visible_ms_p99        from the answer to a change until every worker shows it, while nobody searches;
                          visible_ms_p99_busy while others write and search
    search_p99_ms         the search stage of ``/search/images`` in the live service while others write; also
                          …_quiet (nobody writes) and …_compacting; each with its p50. The times are the service's own
    search_p99_ms_frozen  the same of the frozen service: what two cores and so many clients cost by themselves
    add_to_encode_ratio   a request that adds an image, divided by one that only encodes an image; medians, one client
    adds_per_s            images added one by one; _16_clients; _batched, 32 a request; edits_per_s of fields alone;
                          beside encoder_image_per_s of the encoder by itself in batches of 32
    recall_at_10          of the live state with its log, against exact search, for captions of other images
    swap_failed, _wrong   requests during the swaps that failed, or whose answer is not what its version gives at rest;
                          these have a small log and no cache
    lost, half            images after kill -9 of every process, while eight writers write: an acknowledged change is
                          missing, or an image is in no state that anybody gave it
    memory_mb, disk_mb    all processes together, shared pages once; the folder of changes and the artifact
    load                  processes that want a core, as the system counts them, at the start: well above 0 means that
                          others used the machine, and that times are too long
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli.console import Bars
from clip_retrieval.client import Client
from clip_retrieval.cores import usable_cores
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.models.prepare import DEMO, prepare_encoder
from scripts.bench import collection
from scripts.bench.artifact import make_artifact
from scripts.bench.live_changes import add_and_encode_ms, change_speeds, visible_ms
from scripts.bench.live_images import NewImages
from scripts.bench.live_prefill import fill_log, recall_at_10
from scripts.bench.live_swaps import swaps
from scripts.bench.live_writers import Writer, verdicts, writing
from scripts.common.machine import commit, cpu, memory
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import NotReady, Served, serving

WORKERS = 2
REMOVED = 0.05
LOAD_CLIENTS, LOAD_WRITERS, KILL_WRITERS = 16, 2, 8
QUERIES_PER_S, SWAP_TEXTS = 1_500, 100
TIMED_FIRST, ENCODER_BATCHES_S = 10_000_000, 4.0
LOADS = 4


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything: images that the log has at the start, seconds of a load, and counts."""

    added: int
    seconds: float
    changes: int
    swaps: int
    kills: int


SHORT = Amounts(added=500, seconds=4, changes=32, swaps=2, kills=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, help="size of the synthetic collection (default: the bundled photographs)"
    )
    parser.add_argument("--added", type=int, default=10_000, help="images that the log has at the start")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of each load")
    parser.add_argument("--changes", type=int, default=96, help="changes of each measured kind")
    parser.add_argument("--swaps", type=int, default=10, help="swaps under load")
    parser.add_argument("--kills", type=int, default=3, help="times that the service is killed")
    parser.add_argument("--short", action="store_true", help="little of everything")
    arguments = parser.parse_args()
    for name in ("images", "seconds", "changes", "swaps", "kills"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            parser.error(f"--{name} must be more than 0, not {value}")
    if not 0 <= arguments.added < 20_000:
        parser.error(f"--added must be from 0 to 19,999, which the service takes by default, not {arguments.added}")
    given = Amounts(arguments.added, arguments.seconds, arguments.changes, arguments.swaps, arguments.kills)
    started, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            figures = Bench(Path(scratch), arguments.images, SHORT if arguments.short else given).run()
        except (NotReady, ClipRetrievalError, RuntimeError) as error:
            sys.exit(f"bench-live: {error}")
    about = {
        "load": round(load, 1),
        "seconds": round(time.monotonic() - started, 1),
        "machine": {"cpu": cpu(), "cores": usable_cores()},
        "commit": commit(),
    }
    print(json.dumps({**figures, **about}))
    sys.exit(1 if any(figures[name] for name in ("search_failed", "swap_failed", "swap_wrong", "lost", "half")) else 0)


class Bench:
    """One run. ``images`` is the size of the synthetic collection; None means the bundled photographs."""

    def __init__(self, scratch: Path, images: int | None, amounts: Amounts) -> None:
        self._scratch, self._images, self._amounts = scratch, images, amounts
        self._environment = {"BENTOML_HOME": str(scratch / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
        (scratch / "bentoml").mkdir()
        self._new = NewImages()
        self._queries = scratch / "queries.json"
        self._each = int(QUERIES_PER_S * (amounts.seconds + 2))
        self._texts = collection.queries(collection.sample_captions(SAMPLE), LOADS * self._each)
        self._queries.write_text(json.dumps(self._texts))
        self._asked = 0
        self._failed = 0

    def run(self) -> dict[str, Any]:
        """Every measurement in turn."""
        amounts = self._amounts
        with Bars().stage("measuring", 9 + amounts.kills) as advance:
            first, second = self._artifacts()
            advance(1)
            base = Artifact.open(first)
            filled = self._scratch / "filled"
            fill_log(filled, base, amounts.added, int(REMOVED * base.manifest.data.images))
            recall = recall_at_10(filled, base)
            advance(1)
            encoder = self._encoder_alone(first)
            advance(1)
            frozen, frozen_mb = self._frozen(first)
            advance(1)
            live = self._live(first, filled, advance)
            tally = self._swaps(first, second)
            advance(1)
            found = self._kills(first, base.has_thumbnails, advance)
        return {
            **live,
            "search_p50_ms_frozen": frozen[0],
            "search_p99_ms_frozen": frozen[1],
            "encoder_image_per_s": encoder,
            "recall_at_10": recall,
            "search_failed": self._failed,
            **tally,
            **found,
            "memory_mb": {"frozen": frozen_mb, **live["memory_mb"]},
            "disk_mb": {**live["disk_mb"], "artifact": folder_mb(first)},
            "images": base.manifest.data.images,
            "added": amounts.added,
            "workers": WORKERS,
            "clients": LOAD_CLIENTS,
        }

    def _artifacts(self) -> tuple[Path, Path]:
        """Two artifacts of one encoder whose answers differ."""
        if self._images:
            encoder = prepare_encoder(DEMO)
            return make_artifact(encoder, self._images).path, make_artifact(encoder, max(1, self._images // 2)).path
        made = []
        for prefix in ("", "other-"):
            source = self._scratch / f"source{prefix}"
            shutil.copytree(SAMPLE, source)
            for image in (source / "images").iterdir():
                image.rename(image.with_name(prefix + image.name))
            captions = source / "captions.csv"
            text = captions.read_text(encoding="utf-8").replace("\nimages/", f"\nimages/{prefix}")
            captions.write_text(text, encoding="utf-8")
            command = [sys.executable, "-m", "clip_retrieval", "build", str(source), "--model", DEMO]
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, **self._environment}, check=True, capture_output=True, text=True
            )
            name, version = done.stdout.split()[-1].split(":")
            made.append(self._scratch / "bentoml" / "models" / name / version)
        return made[0], made[1]

    def _frozen(self, artifact: Path) -> tuple[tuple[float, float], float]:
        with self._served(artifact, None) as server:
            return self._search(server.url, self._amounts.seconds), memory(server.pid)["rss_mb"]

    def _live(self, artifact: Path, filled: Path, advance: Callable[[int], None]) -> dict[str, Any]:
        amounts, changes = self._amounts, Path(shutil.copytree(filled, self._scratch / "live"))
        with self._served(artifact, changes, compact_at="0") as server:
            self._until_indexed(server)
            quiet = self._search(server.url, amounts.seconds)
            advance(1)
            visible = visible_ms(server.url, server.pid, 2 * amounts.changes)
            add_ms, encode_ms = add_and_encode_ms(server.url, self._new, amounts.changes, TIMED_FIRST)
            speeds = change_speeds(server.url, self._new, amounts.changes)
            advance(1)
            writers = [Writer(number, self._new) for number in range(LOAD_WRITERS)]
            with writing(server.url, writers), ThreadPoolExecutor(1) as pool:
                watching = pool.submit(visible_ms, server.url, server.pid, amounts.changes // 2)
                written = self._search(server.url, amounts.seconds)
                busy = watching.result()
            advance(1)
            memory_mb, disk_mb = memory(server.pid)["rss_mb"], folder_mb(changes)
            compacting, compact_s = self._compact(server.url)
            advance(1)
            after = {"memory": memory(server.pid)["rss_mb"], "disk": folder_mb(changes)}
        return {
            "visible_ms_p50": percentile(visible, 50),
            "visible_ms_p99": percentile(visible, 99),
            "visible_ms_p99_busy": percentile(busy, 99),
            "search_p50_ms": written[0],
            "search_p99_ms": written[1],
            "search_p50_ms_quiet": quiet[0],
            "search_p99_ms_quiet": quiet[1],
            "search_p50_ms_compacting": compacting[0],
            "search_p99_ms_compacting": compacting[1],
            "compact_s": compact_s,
            "changes_while_searching": sum(writer.made for writer in writers),
            "changes_refused": sum(writer.refused for writer in writers),
            "add_ms": add_ms,
            "encode_ms": encode_ms,
            "add_to_encode_ratio": add_ms / encode_ms,
            **speeds,
            "memory_mb": {"live": memory_mb, "after_compaction": after["memory"]},
            "disk_mb": {"changes": disk_mb, "changes_after_compaction": after["disk"]},
        }

    def _compact(self, url: str) -> tuple[tuple[float, float], float]:
        """Percentiles of searches from the start of a compaction on, and the seconds until it is served."""

        def compact() -> float:
            start = time.perf_counter()
            with Client(url, timeout=120) as client:
                client.compact()
            return time.perf_counter() - start

        with ThreadPoolExecutor(1) as pool:
            compacting = pool.submit(compact)
            found = self._search(url, self._amounts.seconds)
            return found, compacting.result()

    def _swaps(self, first: Path, second: Path) -> dict[str, Any]:
        with self._served(first, self._scratch / "swapped", compact_at="0", cache_size="0") as server:
            change_speeds(server.url, self._new, SHORT.changes)
            artifacts = [str(first), str(second)]
            tally = swaps(server.url, artifacts, self._texts[:SWAP_TEXTS], self._amounts.swaps)
        if len(tally.versions) < 2:
            raise RuntimeError("only one version answered during the swaps; ask for more of them: --swaps")
        return {
            "swap_failed": tally.failed,
            "swap_wrong": tally.wrong,
            "swaps": self._amounts.swaps,
            "swap_requests": tally.requests,
            "swap_p50_s": percentile(tally.seconds, 50),
        }

    def _kills(self, artifact: Path, thumbnails: bool, advance: Callable[[int], None]) -> dict[str, int]:
        writers = [Writer(number, self._new) for number in range(KILL_WRITERS)]
        changes, random = self._scratch / "killed", np.random.default_rng(0)
        counts = {"kept": 0, "lost": 0, "half": 0}
        for number in range(self._amounts.kills + 1):
            with self._served(artifact, changes) as server:
                if number:
                    for verdict in verdicts(server.url, writers, thumbnails=thumbnails):
                        counts[verdict] += 1
                    advance(1)
                if number < self._amounts.kills:
                    with writing(server.url, writers):
                        time.sleep(self._amounts.seconds / 2 + random.random())
                        kill_all(server.pid)
        return {
            "lost": counts["lost"],
            "half": counts["half"],
            "kills": self._amounts.kills,
            "acknowledged_before_kills": sum(writer.made for writer in writers),
        }

    def _search(self, url: str, seconds: float) -> tuple[float, float]:
        """p50 and p99 in milliseconds of the search stage while ``LOAD_CLIENTS`` ask for texts, none of them twice."""
        command = [sys.executable, "-m", "scripts.bench.client", url, "text", "--clients", str(LOAD_CLIENTS)]
        command += ["--seconds", str(seconds), "--queries", str(self._queries), "--offset", str(self._asked)]
        self._asked += self._each
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        found: Mapping[str, Any] = json.loads(done.stdout)
        self._failed += found["failed"]
        return percentile(found["search_ms"], 50), percentile(found["search_ms"], 99)

    def _until_indexed(self, server: Served) -> None:
        """Wait until the workers no longer index what was added: until they are idle."""
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for _ in range(30):
            before = sum(sum(process.cpu_times()[:2]) for process in processes)
            time.sleep(1)
            if sum(sum(process.cpu_times()[:2]) for process in processes) - before < 0.3:
                return

    def _encoder_alone(self, artifact: Path) -> float:
        command = [sys.executable, "-m", "scripts.bench.encoder_alone", str(artifact), str(self._queries)]
        command += ["--seconds", str(min(ENCODER_BATCHES_S, self._amounts.seconds))]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        return float(json.loads(done.stdout)["image_per_s"])

    @contextmanager
    def _served(self, artifact: Path, changes: Path | None, **settings: str) -> Iterator[Served]:
        """The service of an artifact, with changes in a folder or frozen."""
        settings |= {"artifact": str(artifact), "workers": str(WORKERS), "changes": str(changes or "")}
        environment = self._environment | {f"BENTO_CLIP_{name.upper()}": value for name, value in settings.items()}

        def command(port: int) -> list[str]:
            words = ["bentoml", "serve", "service:ClipRetrieval", "--host", "127.0.0.1", "--port", str(port)]
            return [sys.executable, "-m", *words]

        with serving(command, environment=environment) as server:
            yield server


def kill_all(pid: int) -> None:
    """End a process and all below it by SIGKILL, as a power cut would."""
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        try:
            process.kill()
        except psutil.NoSuchProcess:  # it ended with one before it
            continue


def folder_mb(folder: Path) -> float:
    """Size of all files in a folder, in MB (10⁶ bytes)."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def percentile(values: list[float], percent: float) -> float:
    """The value that ``percent`` of the values do not exceed. Raises ValueError without values."""
    if not values:
        raise ValueError("nothing was measured")
    return round(float(np.percentile(values, percent)), 3)


if __name__ == "__main__":
    main()
