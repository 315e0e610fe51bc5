"""Where ``scripts/bench_live.py`` measures: two artifacts, servers over them, clients that search, and their sizes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from clip_retrieval.models.prepare import DEMO, prepare_encoder
from scripts.bench import collection
from scripts.bench.artifact import make_artifact
from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import Served, bentoml_serve, serving

WORKERS, CLIENTS = 2, 16
QUERIES_PER_S, WARM_UP_S = 1_500, 2
"""More than the clients ask, so that no text is asked twice; the clients warm up before they count."""
IDLE_S, IDLE_SHARE = 30, 0.3


class Place:
    """A folder with a model store of its own."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._store = scratch / "bentoml"
        self._store.mkdir()
        self._environment = {"BENTOML_HOME": str(self._store), "BENTOML_DO_NOT_TRACK": "True"}

    def artifacts(self, images: int | None) -> tuple[Path, Path]:
        """Two artifacts of the demo model whose answers differ: of the synthetic collection of ``images`` images, or of
        the bundled photographs; in the second these have other ids."""
        if images is not None:
            encoder = prepare_encoder(DEMO)
            return make_artifact(encoder, images).path, make_artifact(encoder, max(1, images // 2)).path
        return self._built(""), self._built("other-")

    def _built(self, prefix: str) -> Path:
        source = self._scratch / f"{prefix}source"
        shutil.copytree(SAMPLE, source)
        for image in (source / "images").iterdir():
            image.rename(image.with_name(prefix + image.name))
        captions = source / "captions.csv"
        text = captions.read_text(encoding="utf-8").replace("\nimages/", f"\nimages/{prefix}")
        captions.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "clip_retrieval", "build", str(source), "--model", DEMO]
        environment = {**os.environ, **self._environment}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"bento-clip build failed: {done.stderr.strip()}")
        name, version = done.stdout.split()[-1].split(":")
        return self._store / "models" / name / version

    @contextmanager
    def served(
        self, artifact: Path, changes: Path | None, *, workers: int | None = WORKERS, **settings: str
    ) -> Iterator[Served]:
        """The service of an artifact, with changes in a folder or frozen. Raises NotReady.

        ``workers`` None means as many as the cores are good for. ``settings`` are those of
        ``clip_retrieval/serving/settings.py``.
        """
        settings |= {"artifact": str(artifact), "changes": str(changes or "")}
        if workers is not None:
            settings["workers"] = str(workers)
        environment = self._environment | {f"BENTO_CLIP_{name.upper()}": value for name, value in settings.items()}

        with serving(bentoml_serve, environment=environment) as server:
            yield server


class Searches:
    """``CLIENTS`` clients that ask for texts, none of them twice; ``failed`` counts the requests that failed."""

    def __init__(self, file: Path, seconds: float, loads: int) -> None:
        """The texts of so many loads, of ``seconds`` each, are written to ``file``."""
        self.file, self.failed = file, 0
        self._seconds, self._asked = seconds, 0
        self._each = int(QUERIES_PER_S * (seconds + WARM_UP_S))
        self.texts = collection.queries(collection.sample_captions(SAMPLE), loads * self._each)
        file.write_text(json.dumps(self.texts))

    def ask(self, url: str) -> tuple[float, float]:
        """p50 and p99 of the search stage in milliseconds, as the service measures it, under this load."""
        command = [sys.executable, "-m", "scripts.bench.client", url, "text", "--clients", str(CLIENTS)]
        command += ["--seconds", str(self._seconds), "--warm-up", str(WARM_UP_S)]
        command += ["--queries", str(self.file), "--offset", str(self._asked)]
        self._asked += self._each
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        found: Mapping[str, Any] = json.loads(done.stdout)
        self.failed += found["failed"]
        return percentile(found["search_ms"], 50), percentile(found["search_ms"], 99)


def encoder_alone(artifact: Path, queries: Path, seconds: float) -> float:
    """Images a second of the artifact's encoder in batches, while nothing else runs."""
    command = [sys.executable, "-m", "scripts.bench.encoder_alone", str(artifact), str(queries)]
    done = subprocess.run([*command, "--seconds", str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout)["image_per_s"])


def wait_until_idle(pid: int) -> None:
    """Wait, at most ``IDLE_S`` seconds, until a service has indexed what was added and its processes do nothing."""

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for _ in range(IDLE_S):
        before = used()
        time.sleep(1)
        if used() - before < IDLE_SHARE:
            return


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
