"""Where the shards of a build lie: a folder that every machine of a cluster has, or a place in an object store."""

import socket
from pathlib import Path
from typing import Protocol

from clip_retrieval.atomic import new_file


class ShardPlace(Protocol):
    """Named files. A name is a relative path with forward slashes. Raises OSError."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if there is one of that name."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears whole and replaces one of that name; it is on the disk when this returns."""
        ...


class ShardFolder:
    """A folder of this machine, or one that several machines share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Process numbers are those of one machine, so that machines do not write their halves into one folder.
        self._staging = folder / f".partial-{socket.gethostname()}"

    def read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        with new_file(self._folder / name, replace=True, staging=self._staging) as file:
            file.write(data)


def shard_place(place: str) -> ShardPlace:
    """The place that a path names."""
    return ShardFolder(Path(place))
