"""What ``bentoml serve`` starts the workers with and replaces them: BentoML's supervisor, which is circus, with other
manners. ``bento-clip serve`` and the image have ``workers.py`` for that.

- It answers those who connect before a worker is ready: see ``starting.py``.
- It opens no other port. Circus opens two ports on 127.0.0.1, and any user who can connect to the first may run
  commands as the user of the service. Here its sockets are of the kind that exists inside the process only.
- It replaces a worker within a second or two, in a container too. BentoML looks every ten seconds, and in a container
  lets a service of two workers go on with one.
- It kills a worker whose event loop stands still, which no worker can do to itself.
- It ends with status 1 if a worker has found that the service cannot go on, or if workers end before they are ready.
- A terminal that closes (SIGHUP) ends it, as it ends other commands; circus would start new workers.

A worker looks after its encoder itself: see ``health.py``.
"""

import asyncio
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

from clip_retrieval.serving.leading import BOUND
from clip_retrieval.serving.replacing import CHECK_S, NO_WORKER, Starts, StillWorkers, say_that_it_stands_still
from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState
from clip_retrieval.serving.starting import answer_until, tls_of

RETRY_S = 0.05


DEPENDED_ON = "service_"
"""BentoML's name for the watcher of a service that the one that is served depends on begins so."""


def supervisor(bento_arbiter: Any, shared: SharedState, *, beside: Mapping[str, SharedState] | None = None) -> Any:
    """The class of the supervisor, derived from BentoML's class of circus's ``Arbiter``.

    The workers of the service have ``shared``, and those of a service that it depends on what ``beside`` has under its
    name.
    """
    from circus.exc import ConflictError

    others = {f"{DEPENDED_ON}{name}": its for name, its in (beside or {}).items()}
    each = (shared, *others.values())

    class Supervisor(bento_arbiter):  # type: ignore[misc]
        def __init__(self, watchers: Sequence[Any], *, plugins: Sequence[Any] | None = None, **options: Any) -> None:
            sockets = options.get("sockets") or []
            self._listening: Any = sockets[-1] if sockets else None  # the last is the service's own
            self._starting: asyncio.Task[None] | None = None
            for watcher in watchers:
                its = others.get(watcher.name, shared)
                host = getattr(self._listening, "host", None) or ""
                watcher.env |= {BOUND: host, DESCRIPTOR: str(its.descriptor)}
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

        def initialize(self) -> None:
            """Open the port, and answer those who come before a worker is ready."""
            super().initialize()
            if self._listening is not None:
                self.loop.add_callback(self._answer)

        def _answer(self) -> None:
            def is_started() -> bool:
                return shared.total("times_ready") > 0

            tls = tls_of([part for watcher in self.watchers for part in watcher.args])
            self._starting = asyncio.ensure_future(answer_until(is_started, self._listening, tls))

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
            if self._starting is not None:
                self._starting.cancel()
            try:
                return super().stop()
            except ConflictError:
                self.loop.call_later(RETRY_S, self.stop)
                return None

    return Supervisor


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
                    say_that_it_stands_still(pid)
                    worker.kill()


def _stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
