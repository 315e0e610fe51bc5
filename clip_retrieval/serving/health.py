"""Whether a worker really answers: judged by queries that were answered, not by whether the process runs.

Every second the event loop looks at the batches of the encoder. When one has failed, or when no text was encoded for a
while, a trial query goes the whole way: queue, encoder, search. A worker with a trial query that failed, or with a
batch that does not end, is in trouble: it is not ready. One that stays in trouble gives up, to be replaced.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from clip_retrieval.errors import Busy
from clip_retrieval.serving.batch_watch import BatchWatch
from clip_retrieval.serving.shared_state import SharedState, Slot

LOOK_S = 1.0
"""Seconds between two looks."""

IDLE_S = 5.0
"""Seconds without an answer after which a trial query is worth its milliseconds."""

LEAST_PATIENCE_S = 5.0
"""Least seconds that a batch may take before it is taken for one that does not end."""

REPLACE_AFTER_S = 15.0
"""Seconds of trouble after which a worker gives up."""

ANOTHER_WORKER = "another worker of this service does not answer queries"

log = logging.getLogger(__name__)

Trial = Callable[[], Awaitable[None]]


def patience(single_s: float, max_batch_size: int, request_timeout_s: float) -> float:
    """How many seconds a batch may take, if one input alone took ``single_s``.

    A full batch takes at most as long as its inputs one by one; twice that is allowed. After the time limit of a
    request nobody waits for it any more.
    """
    return min(max(LEAST_PATIENCE_S, 2 * max_batch_size * single_s), request_timeout_s)


class Tried:
    """One kind of input: the watch of its batches, and a trial query of that kind."""

    def __init__(
        self,
        kind: str,
        watch: BatchWatch,
        trial: Trial,
        *,
        patience_s: float,
        idle_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """After ``idle_s`` seconds without an answer the trial is made without any other reason."""
        self._kind = kind
        self._watch = watch
        self._trial = trial
        self._patience_s = patience_s
        self._idle_s = idle_s
        self._clock = clock
        self._trying: asyncio.Future[None] | None = None
        self._began = 0.0
        self._fails = False

    def look(self) -> str | None:
        """What is wrong, as a sentence; None if nothing is. Starts a trial if there is a reason for one."""
        watch, now = self._watch, self._clock()
        self._take_outcome()
        if self._trying is None and (self._fails or watch.has_failed or now - watch.last_success > self._idle_s):
            self._began = now
            self._trying = asyncio.ensure_future(self._trial())
        waits_s = now - self._began if self._trying is not None and watch.last_success < self._began else 0.0
        if (still_s := max(watch.oldest_s, waits_s)) > self._patience_s:
            return f"the encoder of {self._kind} has not answered for {still_s:.0f} s"
        return f"the encoder of {self._kind} fails; the log says why" if self._fails else None

    def _take_outcome(self) -> None:
        """Take note of a trial that has ended. Whatever it raised, queries get it too."""
        if self._trying is None or not self._trying.done():
            return
        trial, self._trying = self._trying, None
        if trial.cancelled() or isinstance(error := trial.exception(), Busy):
            return  # the queue gave it up, which says nothing about the encoder
        if error is not None and not self._fails:
            log.error("a trial query of %s fails: %s: %s", self._kind, type(error).__name__, error)
        self._fails = error is not None


class OutsideWatch:
    """Whether what is outside of this process answers, an index or an encoder: that it does not is no fault of this."""

    def __init__(
        self,
        trouble: Callable[[], str | None],
        probe: Trial,
        *,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``trouble`` says what was wrong with the last call; ``probe`` makes one.

        While something is wrong it is asked at every look, else every ``idle_s`` seconds.
        """
        self._trouble, self._probe, self._idle_s, self._clock = trouble, probe, idle_s, clock
        self._asking: asyncio.Future[None] | None = None
        self._asked_at = -float("inf")
        self._told = False

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, as a sentence; None if it answers."""
        return self._trouble()

    def look(self) -> None:
        """Start a probe if there is a reason for one."""
        if self._asking is not None and self._asking.done():
            if not self._asking.cancelled() and (error := self._asking.exception()) is not None and not self._told:
                log.error("%s", error)
            self._told = self.trouble is not None
            self._asking = None
        due = self.trouble is not None or self._clock() - self._asked_at > self._idle_s
        if self._asking is None and due:
            self._asked_at = self._clock()
            self._asking = asyncio.ensure_future(self._probe())


class Health:
    """The health of one worker, for itself and, by its slot, for the others."""

    def __init__(
        self,
        tried: Sequence[Tried],
        shared: SharedState,
        slot: Slot,
        *,
        give_up: Callable[[str], None],
        index: OutsideWatch | None = None,
        encoder: OutsideWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``give_up`` gets the reason; it ends the process, if there is somebody to replace it.

        ``index`` watches an engine elsewhere: without it queries are not answered, and another process would not help.
        ``encoder`` watches a service that encodes: without it what needs no new vector is answered, so this is ready.
        """
        self._tried = tried
        self._shared = shared
        self._slot = slot
        self._give_up = give_up
        self._index, self._encoder = index, encoder
        self._clock = clock
        self._own: str | None = None
        self._since: float | None = None

    @property
    def trouble(self) -> str | None:
        """Why queries are not answered, as a sentence; None if they are. Any worker's trouble is the service's."""
        if self._own is not None:
            return self._own
        others = (slot for slot in self._shared.slots if slot["is_failing"])
        return ANOTHER_WORKER if any(slot.is_alive() for slot in others) else self.index_trouble

    @property
    def index_trouble(self) -> str | None:
        """Why the engine of the index does not search, as a sentence; None if it does, or if there is none."""
        return None if self._index is None else self._index.trouble

    @property
    def encoder_trouble(self) -> str | None:
        """Why the service that encodes does not, as a sentence; None if it does, or if there is none."""
        return None if self._encoder is None else self._encoder.trouble

    def look(self) -> None:
        """One look at everything."""
        for outside in (self._index, self._encoder):
            if outside is not None:
                outside.look()
        self._own = next((trouble for tried in self._tried if (trouble := tried.look())), None)
        self._slot["is_failing"] = self._own is not None
        if self._own is None:
            self._since = None
            return
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since >= REPLACE_AFTER_S:
            self._give_up(self._own)

    async def keep_looking(self, publish: Callable[[], None]) -> None:
        """Look again and again, and let the supervisor and the other workers know that this event loop turns."""
        while True:
            self._slot["beat"] += 1
            publish()
            self.look()
            await asyncio.sleep(LOOK_S)
