"""The folders of one run, and the commands and services that use them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.common.paths import ROOT, SAMPLE
from scripts.common.server import Served, bentoml_serve, serving

MODEL = "demo"


@dataclass(frozen=True)
class Place:
    """A folder for one run, with a model store and a cache of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        names = {"BENTOML_HOME": "bentoml", "TMPDIR": "tmp"}
        (self.folder / "tmp").mkdir(exist_ok=True)
        return {name: str(self.folder / part) for name, part in names.items()} | {"BENTOML_DO_NOT_TRACK": "True"}

    def command(self, *words: str, **more: str) -> "subprocess.Popen[str]":
        """Start ``bento-clip``."""
        return subprocess.Popen(
            [sys.executable, "-m", "clip_retrieval", *words],
            cwd=ROOT,
            env={**os.environ, **self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self) -> str:
        """The tag of the bundled photographs. Raises RuntimeError with what the command said."""
        out, err = (done := self.command("build", str(SAMPLE), "--model", MODEL)).communicate()
        if done.returncode:
            raise RuntimeError(f"the artifact was not built: {err.strip().splitlines()[-1]}")
        return out.split()[-1]

    @contextmanager
    def service(self, tag: str, **settings: str) -> Iterator[Served]:
        """A service that is ready; its log is ``service.log``."""
        environment = {**self.environment, "BENTO_CLIP_ARTIFACT": tag, "BENTO_CLIP_ACCESS_LOG": "false", **settings}

        with serving(bentoml_serve, log=self.folder / "service.log", environment=environment) as served:
            yield served


def workers(served: Served) -> list[psutil.Process]:
    """The worker processes of a service that run."""
    with suppress(psutil.NoSuchProcess):
        return [one for one in psutil.Process(served.pid).children() if runs(one)]
    return []


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(what: Callable[[], object], seconds: float) -> float | None:
    """How long it took until ``what()`` was true; None if it was not within ``seconds``."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


def settings_of(**given: object) -> Mapping[str, str]:
    """Settings as variables of the environment: ``workers=2`` is ``BENTO_CLIP_WORKERS=2``."""
    return {f"BENTO_CLIP_{name.upper()}": str(value) for name, value in given.items()}
