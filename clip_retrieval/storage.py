"""Errors of disks, folders and file handles in one sentence: what is wrong, where, and what to do.

The same fault comes as an OSError with or without a name, as a list of tuples from ``shutil``, as an error of SQLite,
or as the text of a library in C++.
"""

import errno
import os
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_retrieval.errors import ClipRetrievalError, StorageFailed, StorageFull, StorageReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_HANDLES = {errno.EMFILE, errno.ENFILE}
_KNOWN = (*_FULL, errno.EFBIG, *_FORBIDDEN, *_HANDLES, errno.EIO)
_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}


@contextmanager
def storage(place: Path, then: str = "") -> Iterator[None]:
    """Raise StorageFull, StorageReadOnly or StorageFailed for such an error inside the block; every other error passes.

    ``place`` is the folder that the block writes to, for errors that name no file. ``then`` says what is kept.
    """
    try:
        yield
    except Exception as error:
        message = sentence(error, place)
        if message is None:
            raise
        raise _kind(error, place)(f"{message}; {then}" if then else message) from error


def sentence(error: Exception, place: Path | None = None) -> str | None:
    """What is wrong, where and what to do; None if it is another kind of error, or one that says so itself."""
    number = None if isinstance(error, ClipRetrievalError) else _number(error, place)
    if number is None:
        return None
    named = _named(error, number)
    where = Path(named) if named else place or Path.cwd()
    if number in _HANDLES:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"too many files are open for {where}; the limit is {limit}: raise it, for example with ulimit -n 4096"
    if number in _FULL:
        is_output = named is None and place is None and isinstance(error, OSError)
        return f"{'the place of the output is full' if is_output else _full(where)}; make room there and try again"
    if number == errno.EFBIG:
        return f"a file at {where} would be larger than is allowed; raise the limit (ulimit -f) or move to another disk"
    if number == errno.EIO:
        return f"writing or reading fails at {where} ({_words(error, number)}); check that disk and its free space"
    return (
        f"{where} may not be written or read ({_words(error, number)}); change its rights, or choose other folders: "
        "XDG_CACHE_HOME has the cache, BENTOML_HOME the model store, BENTO_CLIP_CHANGES the changes of a served "
        "collection, TMPDIR temporary files"
    )


def exit_status(error: Exception) -> int:
    """The status of a command that ends for ``error``: that of its kind if it is one of storage, otherwise 1."""
    if isinstance(error, StorageFailed):
        return error.exit_status
    return 1 if sentence(error) is None else _kind(error, Path.cwd()).exit_status


def is_of_the_machine(error: OSError) -> bool:
    """Whether an error says nothing of the file that was to be read: no handle or no memory is left."""
    return error.errno in {*_HANDLES, errno.ENOMEM}


def _kind(error: Exception, place: Path) -> type[StorageFailed]:
    number = _number(error, place)
    if number in {*_FULL, errno.EFBIG}:
        return StorageFull
    return StorageReadOnly if number in _FORBIDDEN else StorageFailed


def _number(error: Exception, place: Path | None) -> int | None:
    if isinstance(error, sqlite3.Error):
        code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_CANTOPEN and _may_write(place):
            return errno.EMFILE
        if code == sqlite3.SQLITE_IOERR and _has_no_room(place):
            return errno.ENOSPC
        return _SQLITE.get(code)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _KNOWN else None
    text = str(error)
    words = {os.strerror(number): number for number in _KNOWN} | {"iostream error": errno.EIO}  # OpenVINO's
    return next((number for part, number in words.items() if part in text), None)


def _named(error: Exception, number: int) -> str | None:
    """The file that an error names; of two, as in a copy, the second where there is no room, since it was written."""
    if not isinstance(error, OSError):
        return None
    names = (error.filename2, error.filename) if number in {*_FULL, errno.EFBIG} else (error.filename,)
    return next((name for name in names if isinstance(name, str)), None)


def _may_write(place: Path | None) -> bool:
    """Whether the folders that SQLite needs may be written; then only a handle can have been missing."""
    return all(os.access(folder, os.W_OK) for folder in (place or Path.cwd(), Path(tempfile.gettempdir())))


def _has_no_room(place: Path | None) -> bool:
    """Whether the disk is too full even for the memory that SQLite shares between processes (32 KiB at a time)."""
    with suppress(OSError):
        return shutil.disk_usage(place or Path.cwd()).free < 32 * 1024
    return False


def _words(error: Exception, number: int) -> str:
    """The reason without what ``shutil`` and C++ put around it."""
    return str(error) if isinstance(error, sqlite3.Error) else os.strerror(number)


def _full(where: Path) -> str:
    """Which disk is full: that of ``where``, or that of temporary files if it has less room."""
    room: dict[int, Path] = {}
    for folder in (where, Path(tempfile.gettempdir())):
        with suppress(OSError):
            there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            room.setdefault(shutil.disk_usage(there).free, folder)
    if not room:
        return f"the disk of {where} is full"
    free = min(room)
    full = f"the disk of {room[free]} is full ({free / 1e6:,.0f} MB are free)"
    return full if room[free] == where else f"{full}, which the work in {where} needs"
