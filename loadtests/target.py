"""What is tested: a host that is there already, or this project's service, started for the run; and where that is."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from clip_retrieval.client import Client
from clip_retrieval.errors import ServiceError

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 180


class CannotRun(Exception):
    """There is nothing to test; the message says why."""


@contextmanager
def served(artifact: str | None, log: Path) -> Iterator[str]:
    """The address of a service started by ``bento-clip serve``, and ended afterwards. Raises CannotRun."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "clip_retrieval", "serve"]
    with log.open("wb") as file:
        child = subprocess.Popen(
            [*command, *([artifact] if artifact else []), "--port", str(port)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _is_ready(url):
            if child.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
                raise CannotRun(f"the service did not start; the end of {log}:\n{tail}")
            time.sleep(0.1)
        yield url
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def service_info(url: str) -> dict[str, Any]:
    """What is served at ``url``. Raises CannotRun if it is not this project's service, or not there."""
    try:
        with Client(url) as client:
            info = client.info()
    except ServiceError as error:
        raise CannotRun(f"{url} cannot be tested: {error}") from error
    return info.model_dump(include={"version", "model", "images", "captions", "artifact"})


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False
