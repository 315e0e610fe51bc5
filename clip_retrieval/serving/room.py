"""The memory that a service has for work beside its requests: a second model, and processes such as a compaction.

It is lent from the budget of the requests, and only where the least that they need is left to them. What it is lent for
is known before: a model holds about as much as its files have.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clip_retrieval.errors import SwapRefused
from clip_retrieval.serving.budget import MIB
from clip_retrieval.serving.shared_state import SharedState, Slot

POLL_S = 0.5
"""How often work that waits for memory looks."""


class Room:
    """The loans of one worker, and those that each worker bears a part of. Used from the event loop."""

    def __init__(self, shared: SharedState | None = None, slot: Slot | None = None, *, workers: int = 1) -> None:
        """``slot`` is this worker's in ``shared``, which has a slot too for each of the ``workers`` that is replaced.

        Without them, it is the room of a service that has one process.
        """
        self._shared = shared or SharedState.alone()
        self._slot = slot or self._shared.slots[0]
        self._workers = workers
        self.inside = 0
        """Bytes of what this process loads beside what it serves."""
        self.left: Callable[[], int | None] = lambda: None
        """Bytes of this worker beside what requests need at least, before any loan; None where there is no limit."""
        self.on_loan: Callable[[], None] = lambda: None
        """Called when a loan begins and when it ends."""

    @property
    def lent(self) -> int:
        """Bytes that this worker's requests do without: its own loans, and its part of those to other processes."""
        return self.inside + self._part(self._shared.total("apart"))

    def _part(self, size: int) -> int:
        return -(-size // self._workers)

    @contextmanager
    def beside(self, size: int, what: str) -> Iterator[None]:
        """``size`` bytes of this process. Raises SwapRefused with the numbers if there are not as many."""
        self._require(size, f"{what} takes about {size / MIB:,.0f} MiB of memory in each worker")
        self.inside += size
        self.on_loan()
        try:
            yield
        finally:
            self.inside -= size
            self.on_loan()

    @contextmanager
    def apart(self, size: int, what: str) -> Iterator[None]:
        """``size`` bytes of another process, of which each worker bears its part. Raises as ``beside``."""
        self._require(self._part(size), _apart(size, what))
        self._slot["apart"] += size
        self.on_loan()
        try:
            yield
        finally:
            self._slot["apart"] -= size
            self.on_loan()

    async def wait_apart(self, size: int, what: str, wait_s: float) -> None:
        """Wait until ``apart`` would lend ``size`` bytes. Raises as it does after ``wait_s`` seconds."""
        end = time.monotonic() + wait_s
        while True:
            try:
                self._require(self._part(size), _apart(size, what))
                return
            except SwapRefused:
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(min(POLL_S, wait_s))

    def _require(self, part: int, sentence: str) -> None:
        if part and (left := self.left()) is not None and part > (left := max(0, left - self.lent)):
            raise SwapRefused(
                f"{sentence}, and a worker has {left / MIB:,.0f} MiB beside what requests need, not "
                f"{part / MIB:,.0f} MiB; raise the limit of the container or BENTO_CLIP_MEMORY_LIMIT_BYTES"
            )


def _apart(size: int, what: str) -> str:
    return f"{what} takes about {size / MIB:,.0f} MiB of memory in a process of its own"
