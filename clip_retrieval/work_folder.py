"""Folders that belong to one process at a time.

A process holds a folder by a lock of the kernel (``flock``), which ends with the process, also when it is killed. A
file in the folder says who holds it, so that a process that waits can say for whom.
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from clip_retrieval.errors import BuildRunning

HOLDER = "held-by.json"
Say = Callable[[str], None]
"""Takes one line for a person."""


@contextmanager
def work_folder(path: Path, say: Say | None, *, temporary: bool = False) -> Iterator[Path]:
    """Make the folder ``path`` if it is missing, and hold it: a second process would spoil what this one writes.

    If another process holds it, ``say`` gets one line that names the process, and this one waits until the other has
    ended. Without ``say``, raises BuildRunning instead. With ``temporary`` the folder is removed when the block ends.
    """
    descriptor = _hold(path, say)
    try:
        with suppress(OSError):  # this helps others; who cannot write at all hears of it from the work itself
            since = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            (path / HOLDER).write_text(json.dumps({"pid": os.getpid(), "since": since}), encoding="utf-8")
        yield path
    finally:
        if temporary:
            shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder ``PREFIX-…`` in ``parent`` that is removed when the block ends.

    Folders of this prefix that killed processes left there are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}-*"):
        if left.is_dir():
            with suppress(BuildRunning), work_folder(left, None, temporary=True):
                pass
    # Another process that cleans up may hold the new folder for a moment.
    with work_folder(parent / f"{prefix}-{uuid.uuid4().hex[:12]}", lambda _: None, temporary=True) as folder:
        yield folder


def _hold(path: Path, say: Say | None) -> int:
    """A descriptor that holds the folder as long as it is open."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        descriptor: int | None = None
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = _holder(path)
                if say is None:
                    raise BuildRunning(
                        f"another process works on the same data and model in {path} ({who}); "
                        "try again when it has ended"
                    ) from None
                say(f"waiting for another bento-clip, which works in {path} ({who})")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A process that has just finished may have removed the folder that was opened here.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                held, descriptor = descriptor, None
                return held
        except FileNotFoundError:
            continue
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        found = json.loads((path / HOLDER).read_text(encoding="utf-8"))
        return f"process {found['pid']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has just begun"
