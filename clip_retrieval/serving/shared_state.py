"""What the workers of one service share: a piece of memory that each of them reads without asking another.

The supervisor makes it before it starts a worker. It is memory without a name, whose descriptor the workers inherit, so
nothing is left behind however the service ends, and no other user can reach it. It has

    generations   numbers that only grow: a worker that sees another number than before does what that number stands for
    slots         one a worker: numbers, and the latencies of the newest requests; its worker alone writes them
    spent         what each caller has spent of its limit; each worker writes it, with ``lock``

A read is a look at memory, about 50 ns. A worker that takes another one's place goes on with its slot, so counts are
since the start of the service. Only ``advance`` and ``lock`` make a system call. A supervisor needs none of the
packages that are imported below in functions.
"""

import fcntl
import mmap
import os
import struct
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from clip_retrieval.access.shared_counts import TABLE_BYTES, SharedCounts
from clip_retrieval.stages import STAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DESCRIPTOR = "BENTOCLIP_SHARED"
"""The environment variable of a service's processes with the descriptor of what they share. It has not the prefix of
the settings."""

Kind = Literal[
    "search_images",
    "search_text",
    "search_similar",
    "encode_text",
    "encode_image",
    "search",
    "search_batch",
    "embeddings",
    "changes",
]
"""What ``/stats`` counts requests by."""

KINDS: tuple[Kind, ...] = get_args(Kind)

Rejection = Literal["too_many", "too_large", "too_slow", "slow_body", "over_share", "over_limit"]

REJECTIONS: tuple[Rejection, ...] = get_args(Rejection)
"""Why a request is rejected: 503, 413, 504, 408; and 429, for what one caller has in progress or has asked for."""

QUEUES = ("encode_texts", "encode_images")
"""The batchable APIs, each with a queue of jobs."""

WINDOW_REQUESTS = 10_000
"""Latencies are kept of so many of the newest requests of each worker."""

REPLICA_RESULTS = ("hits", "misses", "timeouts", "away")
"""What a look-up in the cache that replicas share gives: ``timeouts`` took too long, ``away`` got no answer."""

Generation = Literal["cache"]

FIELDS = (
    *("pid", "starts", "times_ready", "is_ready", "beat", "is_failing"),
    *("cache_generation", "cache_size", "cache_hits", "cache_misses"),
    *(f"replica_{result}" for result in REPLICA_RESULTS),
    *("apart", "before_encoder", "encoder", "collection"),
    *("pending", *(f"rejected_{reason}" for reason in REJECTIONS), *(f"queued_{queue}" for queue in QUEUES)),
    *(f"queries_{kind}" for kind in KINDS),
    *(f"recorded_{stage}" for stage in STAGES),
)
"""The numbers of a slot. ``recorded`` counts the latencies that were ever written; ``apart`` is the bytes
that are lent to processes of this worker's, such as a compaction. The worker held ``before_encoder`` bytes
before its encoder was loaded, ``encoder`` more with it, and ``collection`` more with an open collection."""

PLACE = {name: place for place, name in enumerate(FIELDS)}
"""Where a number is in ``Slot.cells``."""

GAUGES = ("is_ready", "beat", "is_failing", "apart", "cache_size", "pending", *(f"queued_{queue}" for queue in QUEUES))
"""What begins at 0 with each process; all other numbers go on."""

_SLOTS, _WINDOW, _CREATED_NS, _CREATOR, _HAS_FAILED, _IS_VERIFIED, *_GENERATIONS = range(6 + len(get_args(Generation)))
_GENERATION = dict(zip(get_args(Generation), _GENERATIONS, strict=True))
_HEADER_BYTES = 8 * (_GENERATIONS[-1] + 1)


class Slot:
    """The numbers of one worker. ``cells`` is for code that runs with each request; other code takes names."""

    def __init__(self, memory: memoryview, window: int) -> None:
        """``memory`` holds int64 cells, then a ring of float64 seconds for each stage."""
        size = 8 * len(FIELDS)
        self.cells = memory[:size].cast("q")
        rings = memory[size:].cast("d")
        self.rings = {stage: rings[n * window : (n + 1) * window] for n, stage in enumerate(STAGES)}

    def __getitem__(self, name: str) -> int:
        return self.cells[PLACE[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self.cells[PLACE[name]] = value

    def seconds(self, stage: str) -> "NDArray[np.float64]":
        """The latencies of the newest requests that went through a stage, in no order: float64 (n,)."""
        import numpy as np

        return np.array(self.rings[stage])[: self[f"recorded_{stage}"]]

    def is_alive(self) -> bool:
        """Whether the process that has this slot runs."""
        import psutil

        try:
            return self["pid"] > 0 and psutil.Process(self["pid"]).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class SharedState:
    """The memory of one service, in any of its processes."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is that of memory that ``create`` has laid out. Raises OSError or ValueError if it is not."""
        self.descriptor = descriptor
        memory = memoryview(mmap.mmap(descriptor, 0))
        self._header = memory[:_HEADER_BYTES].cast("q")
        count, window = self._header[_SLOTS], self._header[_WINDOW]
        size = _slot_bytes(window)
        slots_end = _HEADER_BYTES + (count + 1) * size
        if len(memory) != slots_end + TABLE_BYTES:
            raise ValueError(f"descriptor {descriptor} is not that of a service's shared state")
        *self.slots, self.exported = (Slot(memory[_HEADER_BYTES + n * size :][:size], window) for n in range(count + 1))
        """``exported`` holds the counts that the metrics of all workers together have; ``lock`` protects it."""
        self.spent = SharedCounts(memory[slots_end:], self.lock)

    @classmethod
    def create(cls, slots: int = 1, *, window: int = WINDOW_REQUESTS) -> "SharedState":
        """New memory, all numbers 0, whose descriptor child processes can inherit."""
        descriptor = _anonymous()
        os.ftruncate(descriptor, _HEADER_BYTES + (slots + 1) * _slot_bytes(window) + TABLE_BYTES)
        os.pwrite(descriptor, struct.pack("=4q", slots, window, time.monotonic_ns(), os.getpid()), 0)
        os.set_inheritable(descriptor, True)
        made = cls(descriptor)
        weakref.finalize(made, os.close, descriptor)
        return made

    @classmethod
    def alone(cls) -> "SharedState":
        """New memory for this process alone, which has its only slot."""
        made = cls.create()
        made.slots[0]["pid"] = os.getpid()
        return made

    @classmethod
    def of_process(cls, pid: int, descriptor: int) -> "SharedState":
        """That of another process, which has it under ``descriptor``. Linux alone. Raises OSError or ValueError."""
        opened = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
        try:
            found = cls(opened)
        except BaseException:
            os.close(opened)
            raise
        weakref.finalize(found, os.close, opened)
        return found

    @property
    def uptime_s(self) -> float:
        """Seconds since the service was started."""
        return (time.monotonic_ns() - self._header[_CREATED_NS]) / 1e9

    @property
    def creator(self) -> int:
        """The process id of the supervisor, or of the one process of a service that has none."""
        return self._header[_CREATOR]

    @property
    def has_failed(self) -> bool:
        """Whether a worker has found that the service cannot go on."""
        return self._header[_HAS_FAILED] != 0

    def fail(self) -> bool:
        """Note that the service cannot go on; True for the first that says so."""
        with self.lock():
            is_first = not self.has_failed
            self._header[_HAS_FAILED] = 1
        return is_first

    @property
    def is_verified(self) -> bool:
        """Whether a worker has found that the artifact which all serve first is whole."""
        return self._header[_IS_VERIFIED] != 0

    def verified(self) -> None:
        """Note that it is."""
        self._header[_IS_VERIFIED] = 1

    def generation(self, name: Generation) -> int:
        return self._header[_GENERATION[name]]

    def advance(self, name: Generation) -> int:
        """Make the number one larger, for every worker to see at once, and return it."""
        with self.lock():
            self._header[_GENERATION[name]] += 1
            return self._header[_GENERATION[name]]

    def total(self, name: str) -> int:
        """The sum of a count over all workers that there ever were."""
        return sum(slot[name] for slot in self.slots)

    def now(self, name: str) -> int:
        """The sum of a number over the workers that run."""
        return sum(slot[name] for slot in self.slots if slot.is_alive())

    def cache_size(self) -> int:
        """Kept answers of all workers; none of a worker that has yet to see that the cache was cleared."""
        generation = self.generation("cache")
        slots = (slot for slot in self.slots if slot["cache_generation"] == generation)
        return sum(slot["cache_size"] for slot in slots if slot.is_alive())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the other processes out. It is not for threads: each process uses it from one of them."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def _slot_bytes(window: int) -> int:
    return 8 * (len(FIELDS) + len(STAGES) * window)


def _anonymous() -> int:
    """A descriptor of memory, or of a file without a name where there is no such memory.

    A page of a file on a disk may not be written while the disk has it, which could hold up a request.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("bento-clip")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
