"""The folder in which one process at a time collects the parts of a result."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_retrieval.errors import BuildRunning


@contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """Make the folder ``path`` if it is missing, and hold it: a second process would spoil its append-only files.

    The kernel releases the folder when the process ends, also when it is killed. Raises BuildRunning if another process
    holds the folder.
    """
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A process that has just finished may have removed the folder that was opened here.
            is_held = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_held = False
        if not is_held:
            raise BuildRunning(
                f"another process works on the same data and model in {path}; try again when it has ended"
            )
        yield path
    finally:
        os.close(descriptor)
