"""A server as a child process: a port for it, its start, waiting until it is ready, its end."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from scripts.common.paths import ROOT

READY_TIMEOUT_S = 180
STOP_TIMEOUT_S = 30
LAST_LINES = 20


class NotReady(Exception):
    """The server did not become ready; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready; ``ready_s`` is the time from its start to its first successful answer."""

    url: str
    pid: int
    ready_s: float


def reserve_port() -> int:
    """A TCP port of 127.0.0.1 that the system gives to nobody else for about a minute.

    ``bentoml serve --port 0`` does not say which port it got, so the port is chosen before. A port that was only bound
    and closed may be given away again before the server binds it. Here one connection goes through the port, which
    leaves it in the state TIME_WAIT: the system then passes it over when it chooses a port for somebody, while a server
    that names it can bind it, because servers set SO_REUSEADDR.
    """
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        address: tuple[str, int] = listener.getsockname()
        with closing(socket.create_connection(address)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first gets TIME_WAIT: the server's
            client.recv(1)
    return address[1]


def bentoml_serve(port: int, service: str = "clip_retrieval.service:ClipRetrieval") -> list[str]:
    """BentoML's own command for a service; BENTO_CLIP_ARTIFACT names the artifact."""
    return [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]


def is_ready(url: str) -> bool:
    """Whether a GET of ``url`` succeeds within two seconds."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def wait_until_ready(url: str, alive: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> bool:
    """Wait until a GET of ``url`` succeeds; False if the server ends before, or after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while not is_ready(url):
        if not alive() or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def serving(
    command: Callable[[int], Sequence[str]],
    *,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    ready_path: str = "/readyz",
) -> Iterator[Served]:
    """A ready server, started by ``command(port)`` in the checkout and ended afterwards. Raises NotReady.

    ``environment`` adds to this process's own; ``log`` gets standard output and error, a temporary file by default.
    It listens on 127.0.0.1, and what changes it may be measured: it asks for no keys unless ``environment`` says so.
    """
    port = reserve_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as scratch:
        log = log or Path(scratch) / "log"
        started = time.monotonic()
        with log.open("wb") as file:
            child = subprocess.Popen(
                command(port),
                cwd=ROOT,
                env={**os.environ, "BENTO_CLIP_INSECURE": "true", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            if not wait_until_ready(f"{url}{ready_path}", lambda: child.poll() is None):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise NotReady(f"the server did not start; the end of {log}:\n" + "\n".join(lines[-LAST_LINES:]))
            yield Served(url, child.pid, time.monotonic() - started)
        finally:
            child.send_signal(signal.SIGTERM)  # does nothing to a child that has ended
            with suppress(subprocess.TimeoutExpired):
                child.wait(STOP_TIMEOUT_S)
            child.kill()
            child.wait()
