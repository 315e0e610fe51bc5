"""The folder that the processes of one service share, for its user alone. The supervisor makes and removes it."""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

VARIABLE = "BENTOCLIP_ROLLOUT"
"""The environment variable with the folder, for the workers. It has not the prefix of the settings: it is none."""

FIRST = "first"
"""The file with the name of what all serve first."""


def service_folder() -> Path:
    """The folder of the service of this process; one of its own where there is no supervisor."""
    return Path(os.environ.get(VARIABLE) or _own_folder(os.getpid()))


@cache
def _own_folder(_: int) -> Path:
    return make_folder()


def make_folder() -> Path:
    """A new folder of this process. Those of processes that have ended are removed."""
    prefix = f"bento-clip-{os.getuid()}-"
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{prefix}*"):
        number = left.name.removeprefix(prefix)
        if number.isdigit() and not _runs(int(number)) and left.stat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    folder = place / f"{prefix}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    atexit.register(_remove, folder, os.getpid())
    return folder


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes that want this out. The kernel ends it for a process that ends, however that came about."""
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def first_of_all(folder: Path, find: Callable[[], str]) -> str:
    """What the first worker of the service has found; it calls ``find``, and the others wait for what it says.

    So all serve one and the same, also a worker that comes when the name already means something newer. If ``find``
    raises, the next one is the first.
    """
    told = folder / FIRST
    with alone(folder / f"{FIRST}.lock"):
        if not told.exists():
            partial = folder / f"{FIRST}.partial"
            partial.write_text(find(), encoding="utf-8")
            partial.replace(told)
        return told.read_text(encoding="utf-8")


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits what is to be done at the end
        shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
