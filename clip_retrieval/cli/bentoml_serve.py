"""Runs the service of an artifact as a child process, reports when it is ready, and passes signals on.

Once it is ready, this process becomes ``waiting.py``, unless it was asked what the start took.
"""

import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NoReturn

from clip_retrieval.cli import console
from clip_retrieval.cli.probe import is_ready
from clip_retrieval.cli.start_table import StartProfile
from clip_retrieval.cli.tls import Tls
from clip_retrieval.cli.waiting import STOPS, exit_status, pass_on
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.serving import lifeline

Address = IPv4Address | IPv6Address
LAUNCH, WAITING = "clip_retrieval.serving.launch", "clip_retrieval.cli.waiting"
SERVICE_FOLDER = Path(__file__).resolve().parents[2]
"""The parent of the package, which BentoML imports the service from, in a checkout and in an installation."""
POLL_S = 0.05


def serve_artifact(
    tag: str,
    host: str,
    port: int,
    environment: Mapping[str, str],
    tls: Tls | None = None,
    profile: StartProfile | None = None,
    example: Callable[[], str | None] = lambda: None,
) -> int:
    """Serve until the child process ends, and exit with its status.

    Without ``profile`` it returns only if the child ended before it was ready; the status is not 0 if that was by
    itself. ``host`` is an address or a name; with ``tls`` it is HTTPS. ``profile`` is told what the start took.
    ``example`` gives a text that finds something here; it is asked when the service is ready. Raises ClipRetrievalError
    if the host is unknown or the port is in use.
    """
    address = address_of(host, port)
    _require_free(address, port)
    command = [sys.executable, "-m", LAUNCH, "--folder", str(SERVICE_FOLDER), "--host", str(address)]
    command += ["--port", str(port)]
    command += [] if tls is None else tls.options()
    variables = {"BENTOML_DO_NOT_TRACK": "True", **environment, "BENTO_CLIP_ARTIFACT": tag}
    if profile is not None:
        variables |= profile.variables()
        profile.mark("checks")
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.send_signal(signal.SIGTERM)

    child = subprocess.Popen(
        command,
        pass_fds=lifeline.hold(variables),
        env=variables,
        start_new_session=True,  # a Ctrl-C reaches the child once, through the handler below
    )
    pass_on(stop)
    url = url_of(address, port, tls=tls)
    started = time.monotonic()
    asked = url_of(address, port, shown=False, tls=tls)
    try:
        console.note("starting the service")  # no spinner: the child writes its log to the same terminal
        asks_clients = tls is not None and tls.client_authority is not None
        _wait_until_ready(child, asked, asks_clients=asks_clients)
        if profile is not None:
            profile.mark("waiting until the service is ready")
            profile.ask(asked)
    except _Ended:
        return exit_status(child.returncode) if stopped else exit_status(child.returncode) or 1
    took = time.monotonic() - started
    console.err.print(f"ready in {took:.1f} s: [bold]{url}[/] (API pages at {url}/docs)", soft_wrap=True)
    console.err.print("try:", style="bold")
    console.err.print(try_line(url, key_header(environment), example()), markup=False, highlight=False, soft_wrap=True)
    if profile is None:
        _become_waiting(child.pid)
    profile.show()
    return exit_status(child.wait())


def _become_waiting(service: int) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    lifeline.keep()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", WAITING, str(service), *sys.argv])


def try_line(url: str, key: str, example: str | None) -> str:
    """A command to try: a search for ``example``, or the first images of a collection that has no words of its own."""
    if example is None:
        return f"curl -s {key}'{url}/images?limit=3'"
    body = shlex.quote(json.dumps({"text": example, "k": 3}, ensure_ascii=False))
    return f"curl -s {url}/search/images {key}-H 'Content-Type: application/json' -d {body}"


def key_header(environment: Mapping[str, str]) -> str:
    """What curl needs beside the URL where the service asks for a key."""
    has_keys = any(environment.get(name, "").strip() for name in ("BENTO_CLIP_KEYS", "BENTO_CLIP_API_KEYS"))
    return '-H "X-API-Key: $BENTO_CLIP_KEY" ' if has_keys else ""


class _Ended(Exception):
    """The child ended before it was ready. It has printed the reason."""


def _wait_until_ready(child: "subprocess.Popen[bytes]", url: str, *, asks_clients: bool) -> None:
    while not is_ready(url, asks_clients=asks_clients):
        if child.poll() is not None:
            raise _Ended
        time.sleep(POLL_S)


def address_of(host: str, port: int) -> Address:
    """The address of ``host``, of IPv4 if it has one; BentoML takes no names. Raises ClipRetrievalError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return ip_address(str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0]))
    except (OSError, UnicodeError, ValueError) as error:
        raise ClipRetrievalError(
            f"--host {host} is neither an address nor a name that this machine knows; use 127.0.0.1, localhost, ::1, "
            "or 0.0.0.0 for every interface"
        ) from error


def url_of(address: Address, port: int, *, shown: bool = True, tls: Tls | None = None) -> str:
    """Where a client on this machine reaches the service.

    A person is shown ``localhost``, which can also be an address of IPv6 where another server listens; so the URL that
    is not shown has the address that is served.
    """
    scheme = "http" if tls is None else "https"
    if address.version == 6:
        return f"{scheme}://[{'::1' if address.is_unspecified else address}]:{port}"
    local = "127.0.0.1" if address.is_unspecified else str(address)
    return f"{scheme}://{'localhost' if shown and local == '127.0.0.1' else local}:{port}"


def _require_free(address: Address, port: int) -> None:
    with closing(socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            todo = "choose another port: --port, or PORT= for make"
            if error.errno == errno.EADDRNOTAVAIL:
                todo = "choose an address of this machine: --host"
            raise ClipRetrievalError(f"cannot listen on {address}:{port} ({error.strerror}); {todo}") from error
