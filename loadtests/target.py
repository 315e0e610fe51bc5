"""The service to test: one that runs already, or this project's own, started for the run; and what it serves."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clip_retrieval.client import Client
from clip_retrieval.errors import ServiceError
from scripts.common.paths import ROOT
from scripts.common.server import NotReady, serving


class CannotRun(Exception):
    """The test cannot be made; the message says why."""


@contextmanager
def served(artifact: str | None, log: Path) -> Iterator[str]:
    """The address of a service that ``bento-clip serve`` starts, and that is ended afterwards. Raises CannotRun."""

    def command(port: int) -> list[str]:
        what = [artifact] if artifact else []
        return [sys.executable, "-m", "clip_retrieval", "serve", *what, "--port", str(port)]

    try:
        with serving(command, log=log) as server:
            yield server.url
    except NotReady as error:
        raise CannotRun(str(error)) from error


def synthetic_artifact(images: int) -> str:
    """The folder of the benchmark's artifact of ``images`` images, made if it is not in the cache. Raises CannotRun.

    A process of its own makes it, so that the packages that this needs (torch, faiss) are not loaded here.
    """
    command = [sys.executable, "-m", "scripts.bench.artifact", "--images", str(images)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"the collection of {images} images could not be made; see above")
    return done.stdout.splitlines()[-1]


def service_info(url: str) -> dict[str, Any]:
    """What is served at ``url``. Raises CannotRun if this project's service does not answer there."""
    try:
        with Client(url, key=os.environ.get("BENTO_CLIP_KEY")) as client:
            info = client.info()
    except ServiceError as error:
        raise CannotRun(f"{url} cannot be tested: {error}") from error
    return info.model_dump(include={"version", "model", "images", "captions", "artifact"})
