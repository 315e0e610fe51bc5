"""The memory that a worker may give to requests: known from its limit, and taken before anything is allocated.

A worker has what its control group, or its machine, leaves it beside what it holds in any case. A fifth is for the
bodies of requests, or as much more as the largest body needs, up to a third; a twelfth is for bodies on their way, the
rest for images that are being decoded. They are shares of their own, because a body waits for its image: if bodies
could take everything, images would wait for bodies that wait for them.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from clip_retrieval.cores import CGROUP_ROOT
from clip_retrieval.errors import Busy, ShortOfMemory, TooCostly

MIB = 2**20
BODIES, MOST_FOR_BODIES = 1 / 5, 1 / 3
"""The part of a worker's budget that is for complete bodies, and what it is at most where the largest body needs it."""
ARRIVING = 1 / 12
"""The part for bodies on their way, of which ``Intake`` drops the oldest; one copy of the largest body fits in it where
``JSON_COPIES`` fit in ``MOST_FOR_BODIES``."""
JSON_COPIES, FORM_COPIES = 5, 3
"""How often a body is in memory at most. JSON: as it came, as text, the values, an image of it as bytes, and these on
their way to a decoder. A form: as it came, as a file (which is memory where /tmp is), and on its way to a decoder."""
SUPERVISOR, WORKER = 90 * MIB, 130 * MIB
"""What the supervisor holds, and a worker without its model: measured, 91 and 142 MB."""
RESERVE = 192 * MIB
"""What a worker may still grow by, caches that fill up and larger batches of the encoder, and its part of the command
that started the service."""


def memory_limit(cgroup: Path = CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """The bytes that this process and its like may have together: the least limit of its control group and of those
    around it (version 1 and version 2), and at most the memory of the machine.
    """
    limits = [psutil.virtual_memory().total]
    for folder, file in _groups(cgroup, own):
        with suppress(OSError, ValueError):  # "max" is not a number
            limits.append(int((folder / file).read_text()))
    return min(limits)


def _groups(cgroup: Path, own: Path) -> Iterator[tuple[Path, str]]:
    """Each folder of a control group of this process, and the file with its limit.

    In a container the root is the container's own group. Elsewhere ``own`` has the path below it.
    """
    lines = []
    with suppress(OSError):
        lines = own.read_text().splitlines()
    yield cgroup, "memory.max"
    yield cgroup / "memory", "memory.limit_in_bytes"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, file = (cgroup / "memory", "memory.limit_in_bytes") if controllers else (cgroup, "memory.max")
        place = Path(path.lstrip("/"))
        for part in (place, *place.parents):
            yield root / part, file


def held_memory(pid: int | None = None) -> int:
    """The bytes that a process holds and the kernel cannot take back: not the pages of files that it has mapped.

    Of a collection of a million images most is mapped. Returns 0 for a process that has ended.
    """
    with suppress(psutil.Error):
        memory = psutil.Process(pid or os.getpid()).memory_info()
        return int(memory.rss) - int(getattr(memory, "shared", 0))
    return 0


class Share:
    """A number of bytes, of which requests take some and give them back. Used from the event loop."""

    def __init__(self, name: str) -> None:
        """``name`` says in messages what the memory is for. Until ``total`` is set there is no limit."""
        self.name = name
        self.total: int | None = None
        self.lent = 0
        """Bytes of ``total`` that something else has for a while: what needs them is refused now, not for ever."""
        self.taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def fits_ever(self, size: int) -> bool:
        return self.total is None or size <= self.total

    def _fits(self, size: int) -> bool:
        return self.total is None or self.taken + size <= self.total - self.lent

    def take_now(self, size: int) -> None:
        """Take ``size`` bytes, to be given back by ``give``.

        Raises TooCostly if there will never be as many, Busy if there are not as many now.
        """
        if not self.fits_ever(size):
            raise TooCostly(
                f"this takes {size / MIB:,.0f} MiB of memory for {self.name}, and the server has "
                f"{(self.total or 0) / MIB:,.0f} MiB; send less at once"
            )
        if not self._fits(size):
            raise Busy(f"there is no memory left for {self.name} at the moment; retry after 1 s")
        self.taken += size

    async def take(self, size: int) -> None:
        """The same, but wait in line until there are so many bytes. Raises TooCostly."""
        if self._waiting or not self._fits(size):
            if not self.fits_ever(size):
                self.take_now(size)
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn  # ``serve_waiting`` sets it and has taken the bytes
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.give(size)
                raise
        else:
            self.taken += size

    def give(self, size: int) -> None:
        self.taken -= size
        self.serve_waiting()

    def serve_waiting(self) -> None:
        """Let those who wait go on, in order, as far as there are bytes for them."""
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.taken += size
                turn.set_result(None)

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """``size`` bytes for as long as the context lasts. Raises as ``take_now``."""
        self.take_now(size)
        try:
            yield
        finally:
            self.give(size)


class Budget:
    """What one worker may give to requests: ``bodies`` for what they bring, ``images`` for pixels."""

    def __init__(self) -> None:
        self.bodies = Share("the bodies of requests")
        self.arriving = 128 * MIB
        """Bytes for bodies on their way; so many until the memory is known."""
        self.images = Share("images")

    @property
    def is_idle(self) -> bool:
        """Whether nothing is taken, so that what the process holds is what it holds in any case."""
        return not self.bodies.taken and not self.images.taken

    def divide(self, total: int, largest_body: int, lent: int = 0) -> None:
        """Give out ``total`` bytes from now on, without those that are ``lent`` to something else for a while.

        What is taken already stays taken.
        """
        total = max(total, 0)
        lent = min(max(lent, 0), total)
        self.bodies.total = int(min(total * MOST_FOR_BODIES, max(total * BODIES, JSON_COPIES * largest_body)))
        arriving = int(total * ARRIVING)
        self.arriving = int((total - lent) * ARRIVING)
        self.images.total = total - self.bodies.total - arriving
        for share in (self.bodies, self.images):
            share.lent = -(-lent * (share.total or 0) // total) if total else 0
            share.serve_waiting()


@dataclass(frozen=True)
class Needs:
    """What a worker must have beside what its process holds, by its settings."""

    workers: int
    decoding: int
    """Bytes of its decoders, and of pixels that wait for the encoder."""
    max_body: int
    """Bytes of the largest body."""

    @property
    def _each(self) -> int:
        return self.decoding + RESERVE

    @property
    def least_for_requests(self) -> int:
        """The budget in which the largest body fits."""
        return int(JSON_COPIES * self.max_body / MOST_FOR_BODIES) + 1

    def left(self, limit: int, held: int, beside: int) -> int:
        """The bytes of a worker's budget: its part of ``limit``, without what it holds and what is in reserve.

        ``beside`` is what is held outside of the workers, by their supervisor.
        """
        return (limit - beside) // self.workers - held - self._each

    def least(self, held: int = WORKER, beside: int = SUPERVISOR) -> int:
        """The least limit with which a service starts whose workers hold ``held`` bytes each."""
        return beside + self.workers * (held + self._each + self.least_for_requests)

    def check(self, limit: int, held: int = WORKER, beside: int = SUPERVISOR) -> None:
        """Raises ShortOfMemory."""
        if limit < (least := self.least(held, beside)):
            raise ShortOfMemory(
                f"the service may take {limit / MIB:,.0f} MiB of memory and needs {least / MIB:,.0f} MiB: raise the "
                "limit of its container or BENTO_CLIP_MEMORY_LIMIT_BYTES, or lower BENTO_CLIP_WORKERS, "
                "BENTO_CLIP_DECODE_THREADS, BENTO_CLIP_MAX_PENDING_IMAGES or BENTO_CLIP_MAX_UPLOAD_BYTES"
            )
