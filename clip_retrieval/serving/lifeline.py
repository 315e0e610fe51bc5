"""Processes that live and die together: a child learns at once that its parent has ended, however that came about.

The parent has the write end of a pipe and never writes. When it ends, the kernel closes that end and the read end in
the child becomes readable. It needs no polling, works on every Unix, and cannot come too late: for a parent that ended
before the child looked, it is readable at once. (Linux has a signal for this, ``PR_SET_PDEATHSIG``, which is lost if
the parent ends before it is asked for.) A child follows its parent's parent likewise, so that all end together.
"""

import os
import select
import signal
import stat
import threading
from collections.abc import Callable, Mapping, MutableMapping

VARIABLE = "BENTOCLIP_LIFELINE"
"""The environment variable with the descriptors of the read ends, of the parent's pipe and of those that the parent
follows itself. It has not the prefix of the settings: it is none."""

GRACE_S = 0.5
"""Seconds for an orphan to end in good order."""

_held: list[int] = []
"""The write ends of this process."""


def hold(environment: MutableMapping[str, str]) -> list[int]:
    """Make the pipe of this process, and name it in ``environment``, that of children.

    Returns the descriptors that these have to inherit: they are inheritable. The write end stays open.
    """
    read, write = os.pipe()
    _held.append(write)
    os.set_inheritable(read, True)
    pipes = [*_pipes(environment), read]
    environment[VARIABLE] = ",".join(map(str, pipes))
    return pipes


def keep() -> None:
    """Let children live on when this process becomes another program by ``exec``. It may start none before."""
    for write in _held:
        os.set_inheritable(write, True)


def follow(environment: Mapping[str, str], end: Callable[[], None]) -> threading.Thread | None:
    """Have ``end`` called in a thread when a parent that is named in ``environment``, or a parent's parent, has ended.

    Returns None if there is no such parent, or if what came in between did not pass its pipe on.
    """
    pipes = _pipes(environment)
    if not pipes:
        return None

    ended = select.poll()  # not `select()`, which takes no descriptor above 1,023: a busy process has more
    for pipe in pipes:
        ended.register(pipe, select.POLLIN)

    def wait() -> None:
        ended.poll()
        end()

    thread = threading.Thread(target=wait, name="lifeline", daemon=True)
    thread.start()
    return thread


def _pipes(environment: Mapping[str, str]) -> list[int]:
    """The pipes that ``environment`` names, as far as this process has them."""
    return [int(one) for one in environment.get(VARIABLE, "").split(",") if one.isdigit() and _is_pipe(int(one))]


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def end_soon() -> None:
    """End this process as SIGTERM does, and without further ado after ``GRACE_S``.

    The kernel's own timer sees to the latter: a Python thread may not run any more while the interpreter ends.
    """
    signal.setitimer(signal.ITIMER_REAL, GRACE_S)  # SIGALRM, which nobody here handles
    os.kill(os.getpid(), signal.SIGTERM)
