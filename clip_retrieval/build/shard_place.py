"""Where the shards of a build lie: a folder that every machine of a cluster has, or a place in an object store."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from clip_retrieval.atomic import new_file
from clip_retrieval.datasets.remote import open_objects
from clip_retrieval.datasets.remote_file import again
from clip_retrieval.datasets.store import Objects
from clip_retrieval.errors import ClusterFailed
from clip_retrieval.urls import BUCKETS, is_url, shown_place

T = TypeVar("T")


class ShardPlace(Protocol):
    """Named files. A name is a relative path with forward slashes. Raises OSError, and ClusterFailed for a store."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None if there is none."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if there is one of that name."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears whole and replaces one of that name; it is kept when this returns."""
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


class ShardObjects:
    """Objects below a path of a bucket. What fails is tried again, and then a ClusterFailed that names their URL."""

    def __init__(self, bucket: Objects, path: str, shown: str, *, attempts: int = 4, pause: float = 0.5) -> None:
        """An action is tried ``attempts`` times in all, with a pause (s) that doubles; ``shown`` is the URL."""
        self._bucket, self._path, self._shown = bucket, path, shown
        self._attempts, self._pause = attempts, pause

    def read(self, name: str) -> bytes | None:
        path = f"{self._path}/{name}"
        size = self._tried(lambda: self._bucket.size(path))
        return None if size is None else self._tried(lambda: self._bucket.now(path, size))

    def remove(self, name: str) -> None:
        self._tried(lambda: self._bucket.delete(f"{self._path}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        self._tried(lambda: self._bucket.write(f"{self._path}/{name}", [data]))

    def _tried(self, action: Callable[[], T]) -> T:
        try:
            return again(action, self._attempts, self._pause)
        except OSError as error:
            raise ClusterFailed(f"the shards in {self._shown} cannot be read or written: {error}") from error


def shard_place(place: str) -> ShardPlace:
    """The place that a path or a URL names.

    Raises ClusterFailed for a URL of another scheme, SourceError for an option in it that is unknown and for a store
    that cannot be reached, and MissingExtra.
    """
    if not is_url(place):
        return ShardFolder(Path(place))
    shown, parts = shown_place(place), urlsplit(place)
    if parts.scheme not in BUCKETS or not parts.netloc:
        raise ClusterFailed(f"shards cannot lie in {shown}: give a folder, s3://BUCKET/PATH or gs://BUCKET/PATH")
    bucket, path = open_objects(place)
    return ShardObjects(bucket, path, shown)
