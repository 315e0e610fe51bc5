"""The files that one process writes for one collection, within a bound of bytes for the files of all processes.

Each process appends to a file of its own, so no line has another in its middle. When a file has its share of the bound,
the next one is begun; where all files together would be too large, the oldest go. A lock on the folder keeps several
processes from judging that at the same time; it ends with its process. A file that somebody has removed, as
``clear`` does, is written no more.
"""

import errno
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from clip_retrieval.atomic import locked
from clip_retrieval.query_log.folder import SUFFIX, head_of, make_private, sizes_of

FILES = 16
"""Into so many files the bound is divided: what goes at once is a sixteenth of the log."""


class Segments:
    """The files of one process. Used from one thread."""

    def __init__(self, folder: Path, collection: str, max_bytes: int) -> None:
        self._folder, self._head, self._max_bytes = folder, head_of(collection), max_bytes
        self._path: Path | None = None
        self._file = -1

    def append(self, data: bytes) -> None:
        """Write whole lines; if that fails, none of them is there.

        Raises OSError.
        """
        make_private(self._folder)
        with locked(self._folder):
            try:
                before = self._size()
                if before is None or before + len(data) > self._max_bytes // FILES:
                    self._begin()
                    before = len(self._head)
                self._make_room(len(data))
                self._write(data, before)
            except OSError:
                self.close()
                raise

    def close(self) -> None:
        """The next line begins a file."""
        if self._file >= 0:
            os.close(self._file)
        self._path, self._file = None, -1

    def _size(self) -> int | None:
        """The bytes of the file; None where there is none, or where somebody has removed it."""
        if self._file < 0:
            return None
        seen = os.fstat(self._file)
        return seen.st_size if seen.st_nlink else None

    def _begin(self) -> None:
        self.close()
        self._make_room(len(self._head))
        self._path = self._folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._write(self._head, 0)

    def _write(self, data: bytes, before: int) -> None:
        """Append to a file of ``before`` bytes. A disk may take a part of it before it is full."""
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            raise

    def _make_room(self, needed: int) -> None:
        """Remove the oldest files until there is room for so many bytes; never the one that is written."""
        sizes = sizes_of(self._folder)
        total = sum(sizes.values())
        for name, size in sizes.items():
            if total + needed <= self._max_bytes:
                return
            if self._path is None or name != self._path.name:
                (self._folder / name).unlink(missing_ok=True)
                total -= size
