"""Runs ``bentoml serve`` for an artifact as a child process, reports when it is ready, and passes signals on."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import httpx

from clip_retrieval.cli import console
from clip_retrieval.errors import ClipRetrievalError

SERVICE = "service:ClipRetrieval"
SERVICE_FOLDER = Path(__file__).resolve().parents[2]
"""The folder of ``service.py``: the parent of the package, both in a checkout and in an installation."""


def serve_artifact(tag: str, host: str, port: int, environment: Mapping[str, str]) -> int:
    """Serve until the child process ends, and return its exit status.

    The status is not 0 if the child ended by itself before it was ready. Raises ClipRetrievalError if the port is in
    use.
    """
    _require_free(host, port)
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port)]
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.send_signal(signal.SIGTERM)

    child = subprocess.Popen(
        [*command, "--working-dir", str(SERVICE_FOLDER)],
        env={"BENTOML_DO_NOT_TRACK": "True", **environment, "BENTO_CLIP_ARTIFACT": tag},
        start_new_session=True,  # a Ctrl-C reaches the child once, through the handler below
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    name = "localhost" if host in {"0.0.0.0", "127.0.0.1", "::", "::1"} else host
    url = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    started = time.monotonic()
    try:
        with console.Bars().stage("starting the service", None):
            _wait_until_ready(child, url)
    except _Ended:
        return child.returncode if stopped else child.returncode or 1
    console.err.print(f"ready in {time.monotonic() - started:.1f} s: [bold]{url}[/] (API pages at {url}/docs)")
    console.err.print("try:", style="bold")
    console.err.print(
        f"curl -s {url}/search/images -H 'Content-Type: application/json' "
        """-d '{"text": "a red panda", "k": 3}'""",
        highlight=False,
        soft_wrap=True,
    )
    return child.wait()


class _Ended(Exception):
    """The child ended before it was ready. It has printed the reason."""


def _wait_until_ready(child: "subprocess.Popen[bytes]", url: str) -> None:
    while not _is_ready(url):
        if child.poll() is not None:
            raise _Ended
        time.sleep(0.1)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _require_free(host: str, port: int) -> None:
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClipRetrievalError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port: --port, or PORT= for make"
            ) from error
