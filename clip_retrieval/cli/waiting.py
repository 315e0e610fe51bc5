"""Waits for a service in place of the command that started it, whose process it takes over.

    python -m clip_retrieval.cli.waiting 4711 bento-clip serve

The command has loaded a table of options, colours and a collection, and none of it is needed any more: it becomes this
process (``execv``), which holds an eighth of its memory. What stands behind the number of the service's process is for
people and for ``pkill -f``.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What ends the service. The command blocks them before it becomes this process, so none is lost in between."""


def main() -> None:
    """Wait until the service ends, and exit with its status."""
    service = int(sys.argv[1])

    def stop(*_: object) -> None:
        os.kill(service, signal.SIGTERM)

    pass_on(stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    _, ended = os.waitpid(service, 0)
    sys.exit(exit_status(os.waitstatus_to_exitcode(ended)))


def pass_on(stop: Callable[[int, FrameType | None], None]) -> None:
    """Have ``stop`` called when this process is to end."""
    for number in STOPS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup outlives its terminal
            signal.signal(number, stop)


def exit_status(returncode: int) -> int:
    """The exit status for that of the service; a signal that ended it is told, and is 128 and its number, as in a
    shell.
    """
    if returncode >= 0:
        return returncode
    sys.stderr.write(f"the service was ended by {signal.Signals(-returncode).name}\n")
    return 128 - returncode


if __name__ == "__main__":
    main()
