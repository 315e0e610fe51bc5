"""Files that are read at any place, on this machine or in a store, and images that are a part of one."""

from dataclasses import dataclass
from typing import BinaryIO, Protocol

from clip_retrieval.errors import ImageRejected
from clip_retrieval.records import ImageBlob


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
    """``size`` bytes of a file from ``offset`` on, such as a member of a tar. An ``ImageBlob``."""

    file: StoredFile
    name: str
    offset: int
    size: int

    def read(self, limit: int) -> bytes:
        """The bytes, at most ``limit`` + 1 of them. Raises ImageRejected if the file has become shorter."""
        wanted = min(self.size, limit + 1)
        data = self.file.part(self.offset, wanted)
        if len(data) < wanted:
            raise ImageRejected(f"{self.file.name} ends inside this image")
        return data
