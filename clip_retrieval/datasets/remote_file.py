"""A file in a store: read in parts, by a bounded number of threads at once, and again after a failure."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore
from time import sleep
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from clip_retrieval.datasets.store import Listing, Store
from clip_retrieval.errors import ImageRejected, StoreUnreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
_AT_ONCE = 16
_BUFFER = 1 << 20
"""Bytes that are read at once where a file is read through: many requests for little would be slow."""


@dataclass(frozen=True)
class Reading:
    """How a store is read: a failed read is tried ``attempts`` times in all, with a pause (s) that doubles."""

    store: Store
    attempts: int = 4
    pause: float = 0.5
    _places: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(_AT_ONCE), repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        """Other processes have threads of their own, and so a bound of their own."""
        return Reading, (self.store, self.attempts, self.pause)

    def listing(self) -> Listing:
        """What the store has. It is tried twice at most: a person waits for the answer. Raises as ``Store`` does."""
        return again(self.store.listing, min(self.attempts, 2), self.pause)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes. Raises FileNotFoundError, and StoreUnreachable for refusals and lasting failures."""

        def read() -> bytes:
            with self._places:
                return self.store.read(path, offset, size)

        try:
            return again(read, self.attempts, self.pause)
        except FileNotFoundError:
            raise
        except (PermissionError, ValueError) as error:  # a server that serves no parts of files any more
            raise StoreUnreachable(f"{path} cannot be read: {error}") from error
        except OSError as error:
            raise StoreUnreachable(
                f"{path} cannot be read: {error} (tried {self.attempts} times); run the command again, or copy the"
                " source to this machine"
            ) from error


def again(action: Callable[[], T], attempts: int, pause: float) -> T:
    """What ``action`` gives; after an OSError that may pass it is tried again, ``attempts`` times in all."""
    for attempt in range(1, attempts):
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            sleep(pause * 2 ** (attempt - 1))
    return action()


@dataclass(frozen=True)
class RemoteFile:
    """A file in a store. A ``StoredFile``."""

    reading: Reading = field(repr=False)
    name: str
    path: str
    size: int

    def named(self, name: str) -> "RemoteFile":
        """The same file under another name for people."""
        return replace(self, name=name)

    def read(self, limit: int) -> bytes:
        """The bytes, at most ``limit`` + 1 of them. Raises ImageRejected if the file has gone, and StoreUnreachable."""
        return self.part(0, limit + 1)

    def part(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on. Raises as ``read`` does."""
        try:
            return self.reading.read(self.path, offset, min(size, max(self.size - offset, 0)))
        except FileNotFoundError as error:
            raise ImageRejected(str(error)) from error

    def open(self) -> BinaryIO:
        """The file, for reading at any place. Its reads raise StoreUnreachable."""
        return cast(BinaryIO, io.BufferedReader(_Raw(self), _BUFFER))


class _Raw(io.RawIOBase):
    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        size = min(len(view), max(self._file.size - self._position, 0))
        data = self._file.reading.read(self._file.path, self._position, size) if size else b""
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
