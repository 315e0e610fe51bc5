"""Files that are read at any place, on this machine or in a store, and images that are a part of one."""

import io
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from clip_retrieval.errors import ImageRejected
from clip_retrieval.records import ImageBlob

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class StoredFile(ImageBlob, Protocol):
    """A file of a source. It is an ``ImageBlob``, since it may be an image; or it holds many of them."""

    @property
    def path(self) -> object:
        """Where the file is: equal for equal files."""
        ...

    def named(self, name: str) -> "StoredFile":
        """The same file under another name for people."""
        ...

    def open(self) -> BinaryIO:
        """The file, for reading at any place. Raises OSError."""
        ...

    def part(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on; safe in any thread. Raises ImageRejected with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class PartBlob:
    """``size`` bytes of a file from ``offset`` on, such as a member of a tar. A ``StoredFile``."""

    file: StoredFile
    name: str
    offset: int
    size: int

    @property
    def path(self) -> object:
        """Where the part is: equal for equal parts."""
        return (self.file.path, self.offset)

    def named(self, name: str) -> "PartBlob":
        """The same part under another name for people."""
        return replace(self, name=name)

    def read(self, limit: int) -> bytes:
        """The bytes, at most ``limit`` + 1 of them. Raises ImageRejected if the file has become shorter."""
        return self.part(0, limit + 1)

    def part(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on. Raises as ``read`` does."""
        wanted = min(size, max(self.size - offset, 0))
        data = self.file.part(self.offset + offset, wanted)
        if len(data) < wanted:
            raise ImageRejected(f"{self.file.name} ends inside this image")
        return data

    def open(self) -> BinaryIO:
        """The part, for reading at any place. Raises OSError."""
        return cast(BinaryIO, io.BufferedReader(_Window(self.file.open(), self.offset, self.size)))


class _Window(io.RawIOBase):
    """``size`` bytes of an open file from ``start`` on; closing it closes the file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        self._file.seek(self._start + self._position)
        data = self._file.read(min(len(view), max(self._size - self._position, 0)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
