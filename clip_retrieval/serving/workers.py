"""The processes of workers: started, replaced and stopped, by a supervisor that loads no package.

BentoML's supervisor, which is circus, takes 1 s of processor time and 80 MB for its imports, because it loads the
service that it supervises. Nothing here loads anything: a worker is the command of BentoML's own supervisor
(``_bentoml_impl.server.serving.serve_http``, held by tests/serving/test_workers.py), which reads the settings itself,
and ends the service if it finds that it cannot be served. What is replaced, and when, is as in ``supervisor.py``. The
workers are not forked from one that has imported everything: on two cores there is one worker, and the model's threads
would not live through a fork.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.serving.leading import BENTO, BOUND, IS_SMALL, SERVICE
from clip_retrieval.serving.replacing import (
    CHECK_S,
    NO_WORKER,
    STILL_CHECKS,
    Starts,
    StillWorkers,
    say_that_it_stands_still,
)
from clip_retrieval.serving.shared_state import SharedState

BACKLOG = 2048
"""Connections that may wait for a worker; as BentoML has it."""

WORK = "clip_retrieval.serving.work"
"""What a worker runs."""

NAME = "clip-retrieval"
"""That of the service."""


@dataclass(frozen=True)
class Served:
    """What the workers are started with."""

    identifier: str
    """The service or the Bento, as BentoML loads it."""
    folder: Path
    """The working folder of the workers."""
    listening: socket.socket
    host: str
    options: Sequence[str] = ()
    """Those of TLS, as BentoML's worker takes them."""

    def command(self, number: int) -> list[str]:
        """The command of a worker; numbers begin with 1."""
        command = [sys.executable, "-m", WORK, self.identifier, "--fd", str(self.listening.fileno())]
        command += ["--service-name", NAME, "--backlog", str(BACKLOG), "--worker-id", str(number), "--args", "{}"]
        return [*command, *self.options]

    def spawn(self, number: int, metrics: Path) -> "subprocess.Popen[bytes]":
        """Start a worker, which inherits the sockets and pipes that it needs, and is in a process group of its own: a
        Ctrl-C is for the supervisor. Raises OSError."""
        return subprocess.Popen(
            self.command(number),
            cwd=self.folder,
            env=self.environment(metrics),
            stdin=subprocess.DEVNULL,
            close_fds=False,
            process_group=0,
        )

    def environment(self, metrics: Path) -> dict[str, str]:
        """That of a worker; ``metrics`` is the folder in which the workers leave each other their metrics."""
        scheme = "https" if "--ssl-certfile" in self.options else "http"
        place = f"{scheme}://{self.host}:{self.listening.getsockname()[1]}"
        added = {"BENTOML_RUNNER_MAP": json.dumps({NAME: place}), BOUND: self.host, IS_SMALL: "1"}
        if self.identifier != SERVICE:  # a Bento, which has the code in a folder of its own
            paths = [str(Path(self.identifier) / "src"), os.environ.get("PYTHONPATH")]
            added[BENTO] = self.identifier
            added["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        return {**os.environ, **added, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, which child processes can inherit. Raises OSError."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    listening.setblocking(False)
    listening.set_inheritable(True)
    return listening


class Workers:
    """The workers of one service. ``start`` one, then ``run``."""

    def __init__(
        self,
        count: int,
        shared: SharedState,
        spawn: Callable[[int], "subprocess.Popen[bytes]"],
        *,
        still_checks: int = STILL_CHECKS,
        check_s: float = CHECK_S,
    ) -> None:
        """``spawn(number)`` starts a process; numbers begin with 1, and a worker's is free again when it has ended.

        They are looked at every ``check_s`` seconds; ``still_checks`` looks without a beat are the end of one.
        """
        self._count, self._shared, self._spawn, self._check_s = count, shared, spawn, check_s
        self._starts, self._still = Starts(shared), StillWorkers(shared, still_checks)
        self._running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
        self._is_stopping = False

    def start(self) -> None:
        """Start as many as there should be, as far as another try is worth it."""
        taken = {number for number, _ in self._running.values()}
        for number in (number for number in range(1, self._count + 1) if number not in taken):
            if not self._starts.may_start(self._count):
                return
            try:
                child = self._spawn(number)
            except OSError as error:
                sys.stderr.write(f"bento-clip: a worker cannot be started ({error.strerror})\n")
                continue
            self._running[child.pid] = number, child

    @property
    def pids(self) -> list[int]:
        return list(self._running)

    def stop(self) -> None:
        """Have all workers end in good order: what is in progress is answered."""
        self._is_stopping = True
        for pid in self._running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def reap(self) -> None:
        """Take note of every process that has ended; as process 1 of a container also of others than workers."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _, child = self._running.pop(ended[0], (0, None))
                if child is not None:
                    child.returncode = os.waitstatus_to_exitcode(ended[1])
        if self._shared.has_failed and not self._is_stopping:
            self.stop()

    def replace(self) -> None:
        """Kill those that stand still, and start others for those that have ended."""
        if self._is_stopping:
            return
        for pid in self._still.look():
            if pid in self._running:
                say_that_it_stands_still(pid)
                os.kill(pid, signal.SIGKILL)
        self.start()

    async def run(self, served: Served) -> int:
        """Supervise until no worker is left; returns the exit status of the service."""
        import asyncio  # which takes as long to load as all else here: the workers start before

        from clip_retrieval.serving.starting import answer_until, tls_of

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self.stop)
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGCHLD, ended.set)
        starting = loop.create_task(answer_until(self._is_started, served.listening, tls_of(served.options)))
        self.reap()
        while self._running:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._check_s):
                    await ended.wait()
            ended.clear()
            self.reap()
            self.replace()
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        if not self._is_stopping and self._shared.fail():
            sys.stderr.write(NO_WORKER)
        return int(self._shared.has_failed)

    def _is_started(self) -> bool:
        return self._is_stopping or self._shared.total("times_ready") > 0
