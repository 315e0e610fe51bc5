"""Processes that live and die together: a child learns at once that its parent has ended, however that came about.

The parent has the write end of a pipe and never writes. When it ends, the kernel closes that end and a read in the
child returns. It needs no polling, works on every Unix, and cannot come too late: for a parent that ended before the
child looked, the read returns at once. (Linux has a signal for this, ``PR_SET_PDEATHSIG``, which is lost if the parent
ends before it is asked for.)
"""

import os
import signal
import stat
import threading
from collections.abc import Callable, Mapping

VARIABLE = "BENTOCLIP_LIFELINE"
"""The environment variable with the descriptor of the read end. It has not the prefix of the settings: it is none."""

GRACE_S = 0.5
"""Seconds for an orphan to end in good order. Two generations of them end within two seconds."""


def hold() -> int:
    """Make the pipe of this process and return its read end, for children to inherit. Its write end stays open."""
    read, _write = os.pipe()
    os.set_inheritable(read, True)
    return read


def follow(environment: Mapping[str, str], end: Callable[[], None]) -> threading.Thread | None:
    """Have ``end`` called in a thread when the parent that is named in ``environment`` has ended.

    Returns None if there is no such parent, or if what came in between did not pass its pipe on.
    """
    given = environment.get(VARIABLE, "")
    if not given.isdigit():
        return None
    descriptor = int(given)
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return None
    except OSError:
        return None

    def wait() -> None:
        os.read(descriptor, 1)
        end()

    thread = threading.Thread(target=wait, name="lifeline", daemon=True)
    thread.start()
    return thread


def end_soon() -> None:
    """End this process as SIGTERM does, and without further ado after ``GRACE_S``.

    The kernel's own timer sees to the latter: a Python thread may not run any more while the interpreter ends.
    """
    signal.setitimer(signal.ITIMER_REAL, GRACE_S)  # SIGALRM, which nobody here handles
    os.kill(os.getpid(), signal.SIGTERM)
