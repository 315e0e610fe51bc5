"""The process that starts the workers and replaces them: BentoML's supervisor, which is circus, with other manners.

- It opens no port. Circus opens two ports on 127.0.0.1, and any user who can connect to the first may run commands as
  the user of the service. Here its sockets are of the kind that exists inside the process only.
- It replaces a worker within a second or two, in a container too. BentoML looks every ten seconds, and in a container
  lets a service of two workers go on with one.
- It kills a worker whose event loop stands still, which no worker can do to itself.
- It ends with status 1 if a worker has found that the service cannot go on, or if workers end before they are ready.
- A terminal that closes (SIGHUP) ends it, as it ends other commands; circus would start new workers.

A worker looks after its encoder itself: see ``health.py``.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psutil

from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState, Slot

CHECK_S = 1.0
"""Seconds between two looks at the workers."""

STILL_CHECKS = 30
"""So many looks in a row without a beat of its event loop are the end of a worker. Looks are counted and not seconds:
when the whole machine stood still, the workers are not to blame."""

RETRY_S = 0.05

TRIES = 3
"""So many times in a row each worker may be started before one is ready."""

NO_WORKER = "bento-clip: no worker could be started; the reason is in the lines above\n"


DEPENDED_ON = "service_"
"""BentoML's name for the watcher of a service that the one that is served depends on begins so."""

BOUND = "BENTOCLIP_BOUND"
"""The environment variable of workers with the address that the service listens on. It is no setting."""


def supervisor(
    bento_arbiter: Any,
    shared: SharedState,
    *,
    beside: Mapping[str, SharedState] | None = None,
    on_bound: Callable[[str | None], None] = lambda _: None,
    serve: tuple[str, str] = ("", ""),
) -> Any:
    """The class of the supervisor, derived from BentoML's class of circus's ``Arbiter``.

    The workers of the service have ``shared``, and those of a service that it depends on what ``beside`` has under its
    name. ``serve`` is what BentoML calls the service in this process, and what it is in a worker.
    ``on_bound`` is told the address that the service is about to listen on; None if it is not known.
    """
    from circus.exc import ConflictError

    others = {f"{DEPENDED_ON}{name}": its for name, its in (beside or {}).items()}
    each = (shared, *others.values())

    class Supervisor(bento_arbiter):  # type: ignore[misc]
        def __init__(self, watchers: Sequence[Any], *, plugins: Sequence[Any] | None = None, **options: Any) -> None:
            sockets = options.get("sockets") or []
            host = getattr(sockets[-1], "host", None) if sockets else None  # the last is the service's own
            on_bound(host)
            for watcher in watchers:
                its = others.get(watcher.name, shared)
                watcher.env |= {BOUND: host or "", DESCRIPTOR: str(its.descriptor)}
                watcher.args = [serve[1] if part == serve[0] else part for part in watcher.args]
                watcher.respawn = True
                watcher.hooks["before_spawn"] = partial(_may_start, starts=Starts(its))
            on_hangup = signal.getsignal(signal.SIGHUP)
            # ``bentoml serve --reload`` has a plugin, which is a process: the folder lets in this user alone.
            private = tempfile.mkdtemp(prefix="bento-clip-") if plugins else None
            place = f"ipc://{private}/" if private else "inproc://"
            options |= {"endpoint": f"{place}control", "pubsub_endpoint": f"{place}events", "check_delay": CHECK_S}
            super().__init__(watchers, plugins=plugins, **options)  # which takes over the signals
            if private:
                self.exit_stack.callback(shutil.rmtree, private, ignore_errors=True)
            signal.signal(signal.SIGHUP, signal.SIG_IGN if on_hangup == signal.SIG_IGN else _stop)

        def start(self, cb: Callable[[Any], Any] | None = None) -> None:
            """Run until the end of the service. Raises SystemExit with status 1 if it ends by a failure."""
            threading.Thread(target=_watch, args=each, name="watch-workers", daemon=True).start()
            try:
                super().start(cb)
            except RuntimeError:  # circus has no worker and could start none
                self.exit_stack.close()
                if shared.fail():
                    sys.stderr.write(NO_WORKER)
            if any(one.has_failed for one in each):
                raise SystemExit(1)

        def manage_watchers(self) -> Any:
            """Circus logs a traceback when another of its commands is under way, such as the first start."""
            with suppress(ConflictError):
                return super().manage_watchers()
            return None

        async def _stop_watchers(self, close_output_streams: bool = False, watcher_iter_func: Any = None) -> None:
            """Circus stops all at once. A service needs those beside it for its last requests, so it is first."""
            for watcher in self.iter_watchers() if others else ():
                if watcher.name not in others:
                    await watcher._stop(close_output_streams)
            await super()._stop_watchers(close_output_streams, watcher_iter_func)

        def stop(self) -> Any:
            """Circus drops a SIGTERM that comes while another of its commands is under way."""
            try:
                return super().stop()
            except ConflictError:
                self.loop.call_later(RETRY_S, self.stop)
                return None

    return Supervisor


class Starts:
    """Counts the workers that were started since one became ready."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._times_ready = 0
        self._in_vain = 0

    def may_start(self, workers: int) -> bool:
        """Whether another try to start one of so many workers is worth it; if not, the service has failed."""
        if (times_ready := self._shared.total("times_ready")) != self._times_ready:
            self._times_ready, self._in_vain = times_ready, 0
        self._in_vain += 1
        if self._in_vain <= TRIES * workers:
            return True
        if self._shared.fail():
            sys.stderr.write(f"bento-clip: workers ended {TRIES * workers} times in a row before one was ready\n")
        return False


class StillWorkers:
    """Finds workers whose event loop stands still, by looks at their beats."""

    def __init__(self, shared: SharedState, checks: int = STILL_CHECKS) -> None:
        self._shared = shared
        self._checks = checks
        self._seen: dict[int, tuple[tuple[int, int] | None, int]] = {}

    def look(self) -> list[int]:
        """The process ids of those that have not moved for too many looks; each is named once."""
        return [slot["pid"] for number, slot in enumerate(self._shared.slots) if self._is_still(number, slot)]

    def _is_still(self, number: int, slot: Slot) -> bool:
        moment = (slot["pid"], slot["beat"])
        before, looks = self._seen.get(number, (None, 0))
        looks = looks + 1 if moment == before and slot["is_ready"] else 0
        self._seen[number] = (moment, looks)
        return looks == self._checks


def _may_start(watcher: Any, *, starts: Starts, **_: object) -> bool:
    return starts.may_start(watcher.numprocesses)


def _watch(*shared: SharedState) -> None:
    services = [StillWorkers(one) for one in shared]
    while True:
        time.sleep(CHECK_S)
        for pid in [pid for workers in services for pid in workers.look()]:
            with suppress(psutil.Error):
                worker = psutil.Process(pid)
                if worker.ppid() == os.getpid():
                    sys.stderr.write(f"bento-clip: worker {pid} stands still; it is replaced\n")
                    worker.kill()


def _stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
