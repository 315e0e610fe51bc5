"""Which thread runs first, and on which core: no search waits for a core while something else computes.

A search takes a fraction of a millisecond. A scheduler lets a thread that runs go on for longer than that, also one
of greater niceness. So where a worker can have a core for its event loop, it has one. The encoder's threads come
there too, in the scheduling policy ``SCHED_IDLE``, which gives way at once
(https://man7.org/linux/man-pages/man7/sched.7.html). So do the other threads of the process: the event loop waits for
each that has the GIL, and longer where that one waits for a core itself. They are ``SCHED_BATCH``, which takes no core
from a thread that runs when it wakes up. Other processes, such as decoders, and threads that compute without the GIL
for long have the other cores. Elsewhere, threads of low priority have a great niceness and nothing else is set.

The event loop is not interrupted before it has run for ``SLICE_NS``, which no search takes. By itself the scheduler
looks for another thread after 1 to 3 ms, and a thread of ``SCHED_IDLE`` that has waited for long has its turn, until
the next tick. Linux has slices of threads since 6.12; others ignore them.

What is set here belongs to this process, as its affinity does.
"""

import ctypes
import os
import platform
import socket
import struct
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NICENESS = 10
"""Unix niceness of threads of low priority."""

SLICE_NS = 10_000_000
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, which neither Python nor most C libraries have a name for."""


@dataclass(frozen=True)
class Reserved:
    """The cores of a worker that has one for its event loop."""

    loop: int
    others: frozenset[int]
    """The cores that are no worker's event loop's."""
    all: frozenset[int]
    claim: socket.socket
    """Held as long as this process runs."""


_reserved: Reserved | None = None


def reserve_core(cores: Iterable[int], workers: int) -> int | None:
    """Keep one of ``cores``, which this service has for itself and its ``workers``, for the event loop of this process.

    Until ``take_core`` all threads may use it, since a start has use for every core. Returns the core; None if each is
    needed, or if another service of this machine keeps them already.
    """
    global _reserved  # noqa: PLW0603 - the affinity that it stands for is the process's, too
    numbers = sorted(cores)
    if sys.platform != "linux" or len(numbers) <= workers:
        return None
    for core in numbers[:workers]:
        if (claim := _claim(core)) is not None:
            _reserved = Reserved(core, frozenset(numbers[workers:]), frozenset(numbers), claim)
            _lengthen_slice()  # of the threads that this one starts, too: the shortest of a core counts
            return core
    return None


def take_core() -> None:
    """Have the threads of this process but those of low priority run on the core that is kept for the event loop.

    Called by the event loop's thread. Threads that they start later run there too, unless they say otherwise.
    """
    if _reserved is None:
        return
    loop = threading.get_native_id()
    for task in Path("/proc/self/task").iterdir():
        thread = int(task.name)
        with suppress(OSError):  # it has ended already, or the container forbids it
            if os.sched_getscheduler(thread) != os.SCHED_IDLE:
                os.sched_setaffinity(thread, {_reserved.loop})
                if thread != loop:
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def keep_off(process: int = 0) -> None:
    """Have the calling thread, or the ``process`` with that number, run on other cores than the event loop."""
    if _reserved is not None:
        with suppress(OSError):  # it has ended already, or the container forbids it
            os.sched_setaffinity(process, _reserved.others)


def lower_priority() -> None:
    """Let the calling thread compute only what others leave; its future threads inherit that."""
    _give_way(threading.get_native_id())


def lower_priority_of(process: int) -> None:
    """The same for a process that has just been started."""
    with suppress(ProcessLookupError):  # it has ended already
        _give_way(process)


def _give_way(number: int) -> None:
    if _reserved is not None:
        with suppress(PermissionError):  # a container may forbid it
            os.sched_setscheduler(number, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setaffinity(number, _reserved.all)
            return
    if sys.platform == "linux":  # elsewhere niceness is of a whole process
        os.setpriority(os.PRIO_PROCESS, number, NICENESS)


def _lengthen_slice() -> None:
    """Let the calling thread run for ``SLICE_NS`` at a time. It is what ``sched_runtime`` means in the usual policy.

    https://man7.org/linux/man-pages/man2/sched_setattr.2.html has the structure.
    """
    call = _SCHED_SETATTR.get(platform.machine())
    if call is None:
        return
    niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, SLICE_NS, 0, 0)
    ctypes.CDLL(None).syscall(call, 0, attributes, 0)  # a container may forbid it


def _claim(core: int) -> socket.socket | None:
    """What no other process of this machine has at the same time; the kernel takes it back when the process ends.

    It does not listen, so nobody can connect to it; to a socket for datagrams everybody could write.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0bento-clip-core-{core}")  # a name that is in no folder, see unix(7)
    except OSError:
        claim.close()
        return None
    return claim
