"""Folders and files that get their name only when they are complete.

The content is written beside its place as ``NAME.partial-PID-N``, synced to the disk and renamed. A reader never sees a
part of it. A folder that is replaced is missing for the moment between two renames; if a crash falls there, the next
writer of the name brings it back.

A writer holds a lock on what it writes (``flock``), which ends with its process. What a crash left behind has no lock
and is removed by the next writer of the name. Process numbers would not do: containers that share a folder reuse them.
"""

import errno
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_LEFTOVER = re.compile(r"\.(partial|replaced)-\d+(?:-\d+)?$")
_numbers = itertools.count()


@contextmanager
def new_folder(target: Path, *, replace: bool = False, staging: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends; if the block raises, it is removed.

    With ``replace`` a folder of that name is exchanged for the complete new one and only then deleted. Without it,
    raises FileExistsError when something has the name, at the start or at the end. ``staging`` is a folder on the same
    file system in which the content is written; without it that is the folder of ``target``.
    """
    with _beside(target, staging or target.parent, replace=replace) as partial:
        partial.mkdir()
        with locked(partial):
            yield partial
            _sync_tree(partial)
            _rename(partial, target, replace=replace)


@contextmanager
def new_file(target: Path, *, replace: bool = False, staging: Path | None = None) -> Iterator[BinaryIO]:
    """Yield an empty file, open for writing, that becomes ``target`` when the block ends; else as ``new_folder``."""
    with _beside(target, staging or target.parent, replace=replace) as partial, partial.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
        file.flush()
        os.fsync(file.fileno())
        _rename(partial, target, replace=replace)


def clean_up(staging: Path, home: Path) -> None:
    """Remove what crashed writers left in ``staging``, or bring back to ``home`` what one of them had moved aside."""
    for path in staging.iterdir():
        if named := _LEFTOVER.search(path.name):
            _clean_up(path, named[1], home / path.name[: named.start()])


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _beside(target: Path, staging: Path, *, replace: bool) -> Iterator[Path]:
    """A free path in ``staging``; whatever is there at the end is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging.mkdir(parents=True, exist_ok=True)
    for path in staging.iterdir():
        named = _LEFTOVER.search(path.name)
        if named and path.name[: named.start()] == target.name:
            _clean_up(path, named[1], target)
    if not replace:
        _refuse_existing(target)
    partial = _free_name(staging / target.name, "partial")
    try:
        yield partial
    finally:
        _remove(partial)


def _rename(partial: Path, target: Path, *, replace: bool) -> None:
    if not replace:
        _refuse_existing(target)
    if target.is_dir():
        # No rename puts a folder in the place of one with content, so the old one steps aside first.
        old = _free_name(partial.with_name(target.name), "replaced")
        with locked(target):  # the lock moves with the folder, so that no other writer brings the old one back
            target.rename(old)
            try:
                partial.rename(target)
            except OSError:
                old.rename(target)
                raise
            sync(target.parent)
            _remove(old)
    else:
        partial.replace(target)
        sync(target.parent)


def _clean_up(path: Path, kind: str, target: Path) -> None:
    if _is_locked(path):
        return
    if kind == "replaced" and not os.path.lexists(target):
        path.rename(target)
    else:
        _remove(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """No other process that asks for it is in the block at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_locked(path: Path) -> bool:
    """Whether a writer holds this path; also true for one that has just gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _free_name(target: Path, kind: str) -> Path:
    return target.with_name(f"{target.name}.{kind}-{os.getpid()}-{next(_numbers)}")


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists already; choose a new name")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                sync(path)
        sync(Path(parent))
