"""An image in a file."""

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from clip_retrieval.errors import ImageRejected
from clip_retrieval.storage import is_of_the_machine


@dataclass(frozen=True, slots=True)
class FileBlob:
    """The bytes of the regular file ``path``; ``name`` is the name that users see. A ``StoredFile``."""

    path: Path
    name: str
    is_outside: bool = False
    """Whether it lies outside of its source: then the name is an end of the path."""

    def named(self, name: str) -> "FileBlob":
        """The same file under another name for people."""
        return replace(self, name=name)

    def read(self, limit: int) -> bytes:
        """The bytes of the file, at most ``limit`` + 1 of them.

        Raises ImageRejected if the file cannot be read or is not a regular file: a pipe might never end. Raises OSError
        if that is not the file's fault: too many are open.
        """
        return self.part(0, limit + 1)

    def open(self) -> BinaryIO:
        """The file, for reading at any place. Raises OSError."""
        return self.path.open("rb")

    def part(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on. Raises ImageRejected as ``read`` does."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise ImageRejected("not a file")
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError as error:
            raise ImageRejected("the file does not exist") from error
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_of_the_machine(error):
                raise
            raise ImageRejected(f"the file cannot be read: {getattr(error, 'strerror', error)}") from error
