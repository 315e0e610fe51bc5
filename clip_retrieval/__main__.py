"""``bento-clip`` and ``python -m clip_retrieval``: the command line, or what to install for it."""

import os
import signal
import sys

STREAMS = ("stdin", "stdout", "stderr")
"""By their numbers, 0 to 2."""


def main() -> None:
    """Run the command line. The base install is the client alone and has none of its packages."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a Ctrl-C while packages are imported would be a stack trace
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    try:
        from clip_retrieval.cli.app import main as run
    except ModuleNotFoundError as error:
        from clip_retrieval.errors import MissingExtra

        sys.exit(f"bento-clip: {MissingExtra(f'the command line ({error.name})', 'cli')}")
    signal.signal(signal.SIGINT, before)
    run()


def _open_streams() -> None:
    """Open a standard stream that a shell has closed (``>&-``), to nowhere.

    Otherwise the next file that is opened, such as a database, has its number, and what is printed goes into it.
    """
    for number, name in enumerate(STREAMS):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


if __name__ == "__main__":
    main()
