"""The file of the log: opened for use, its errors in one sentence.

NAME                one SQLite database in WAL mode, with ``NAME-wal`` and ``NAME-shm`` beside it while it is open
NAME-acknowledged   the number of a change that is on disk for certain

What a crash left half at the end of the WAL was not acknowledged, and SQLite drops it
(https://www.sqlite.org/walformat.html). It drops just as silently what follows a damaged byte of the WAL; the second
file shows it. That file is written after each commit without a sync: after a loss of power it may be behind, never
ahead.
"""

import errno
import fcntl
import os
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

from clip_retrieval.errors import Busy, ChangesDamaged, StorageFailed
from clip_retrieval.storage import storage

_SQLITE = b"SQLite format 3\0"
_MODES = (b"\1\1", b"\2\2", b"")
"""Bytes 18 and 19 of a file, the second in WAL mode (https://www.sqlite.org/fileformat2.html)."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


@contextmanager
def log_errors(path: Path) -> Iterator[None]:
    """Errors of SQLite inside the block become StorageFailed, Busy or ChangesDamaged."""
    try:
        with storage(path.parent):
            yield
    except sqlite3.Error as error:
        code: int | None = getattr(error, "sqlite_errorcode", None)
        if code is None:  # the caller's error, as the use of a closed connection
            raise
        if code & 0xFF in _BUSY:
            raise Busy(f"another process holds {path}; try again") from error
        raise damaged(path, str(error)) from error


def damaged(path: Path, what: str) -> ChangesDamaged:
    """The error for a log that is not what was written."""
    return ChangesDamaged(
        f"{path} is damaged: {what}; bring back {path.name} and {path.name}-* from a backup, or move them away "
        "to go on without their changes"
    )


def connect(path: Path, wait_s: float) -> sqlite3.Connection:
    """A connection that waits ``wait_s`` for locks. Any thread may use it, one at a time; transactions are explicit."""
    connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")  # the hash of a damaged text is wrong
    try:
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StorageFailed(
                f"{path.parent} cannot hold a log of changes; choose a folder on a disk of this machine"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # VACUUM needs no other disk, and leaves nothing on one
        connection.execute("PRAGMA journal_size_limit = 16777216")
    except BaseException:
        connection.close()
        raise
    return connection


class HeaderCheck:
    """The header of a database, looked at while this process has no connection to it.

    A process that closes a file loses its locks on it, also those of SQLite, which cannot know
    (https://www.sqlite.org/howtocorrupt.html, section 2.2). The next process that closes its connections would take
    itself for the last one and remove the WAL, with whatever this process writes there from then on.
    """

    _connected: ClassVar[Counter[Path]] = Counter()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path) -> None:
        """Raises ChangesDamaged if SQLite would take the file for one that it may only read."""
        self._path = path.resolve()
        with self._lock:
            if not self._connected[self._path] and path.exists():
                with path.open("rb") as file:
                    header = file.read(20)
                if header.startswith(_SQLITE) and header[18:] not in _MODES:
                    raise damaged(path, "its header is wrong")
            self._connected[self._path] += 1

    def close(self) -> None:
        """This process has one connection less."""
        with self._lock:
            self._connected[self._path] -= 1


class Acknowledged:
    """The file that names a change which is on disk for certain."""

    def __init__(self, path: Path) -> None:
        """``path`` is that of the database. The file and its folder are made if they are missing.

        Raises StorageFailed if something else has the name of the folder or of a file, or where no folder can be.
        """
        self._path = path.with_name(f"{path.name}-acknowledged")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise StorageFailed(
                f"{error.filename} is in the place of a {'file' if path.parent.is_dir() else 'folder'} for changes; "
                "move it away, or choose another folder"
            ) from error
        except FileNotFoundError as error:  # of a file system that makes none, such as /proc
            raise StorageFailed(f"the folder for changes {path.parent} cannot be made; choose another") from error

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Only one process at a time is in this block."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield self
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def read(self) -> int:
        """The number; 0 where none was written. Raises ChangesDamaged if the file holds something else."""
        line = os.pread(self._file, 64, 0)
        if not line.strip(b"\0"):  # new, or a crash came before its content
            return 0
        number = line.split(b" ")[0]
        if line != _line(int(number) if number.isdigit() else -1):
            raise ChangesDamaged(f"{self._path} is damaged; remove it if all changes are there")
        return int(number)

    def write(self, sequence: int) -> None:
        """Name this change. Fails in silence: the change is on disk, and an older number is true as well."""
        with suppress(OSError):
            os.pwrite(self._file, _line(sequence), 0)

    def close(self) -> None:
        os.close(self._file)


def _line(sequence: int) -> bytes:
    number = f"{sequence:019d}"
    return f"{number} {zlib.crc32(number.encode()):08x}\n".encode()
