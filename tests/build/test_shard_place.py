"""Shards lie in a folder or in an object store: what is written appears whole, and what fails is tried again."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("pyarrow")

from pyarrow import fs

from clip_retrieval.build.shard_place import ShardFolder, ShardObjects, ShardPlace, shard_place
from clip_retrieval.datasets.arrow_store import ArrowStore
from clip_retrieval.errors import ClusterFailed, SourceError


class Flaky:
    """An object store that fails some times, then works."""

    def __init__(self, *failures: OSError) -> None:
        self.failures = [*failures]
        self.objects: dict[str, bytes] = {}

    def size(self, path: str) -> int | None:
        self._fail()
        return len(self.objects[path]) if path in self.objects else None

    def now(self, path: str, limit: int) -> bytes:
        self._fail()
        return self.objects[path][:limit]

    def read(self, path: str, offset: int, size: int) -> bytes:
        self._fail()
        return self.objects[path][offset : offset + size]

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        self._fail()
        self.objects[path] = b"".join(parts)

    def delete(self, path: str) -> None:
        self._fail()
        self.objects.pop(path, None)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


def in_a_store(folder: Path) -> ShardPlace:
    """A bucket that is a folder; unlike a real one it needs folders."""
    (folder / "bucket" / "run" / "ab").mkdir(parents=True)
    system = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    return ShardObjects(ArrowStore(urlsplit("s3://bucket/run"), system), "bucket/run", "s3://bucket/run")


@pytest.mark.parametrize("make", [ShardFolder, in_a_store])
def test_what_was_written_is_read_replaced_and_removed(make: type[ShardFolder], tmp_path: Path) -> None:
    place = make(tmp_path)
    assert place.read("ab/one.json") is None
    place.write("ab/one.json", b"first")
    place.write("ab/one.json", b"second")
    assert place.read("ab/one.json") == b"second"
    place.remove("ab/one.json")
    place.remove("ab/one.json")
    assert place.read("ab/one.json") is None


def test_a_failure_that_passes_is_not_seen() -> None:
    store = Flaky(ConnectionError("reset"), ConnectionError("reset"))
    place = ShardObjects(store, "bucket", "s3://bucket", pause=0)
    place.write("a", b"data")
    assert store.objects == {"bucket/a": b"data"}


def test_a_failure_that_lasts_names_the_place_and_the_reason() -> None:
    place = ShardObjects(Flaky(*[ConnectionError("reset")] * 9), "bucket/run", "s3://bucket/run", pause=0)
    with pytest.raises(ClusterFailed, match="the shards in s3://bucket/run cannot be read or written: reset"):
        place.read("a")


def test_a_store_that_refuses_is_asked_once() -> None:
    store = Flaky(PermissionError("no key"), PermissionError("asked again"))
    with pytest.raises(ClusterFailed, match="no key"):
        ShardObjects(store, "bucket", "s3://bucket", pause=0).write("a", b"data")


@pytest.mark.parametrize("url", ["https://host/place", "hf://datasets/name/of", "s3://"])
def test_a_place_that_cannot_hold_shards_is_refused(url: str) -> None:
    with pytest.raises(ClusterFailed, match="give a folder, s3://BUCKET/PATH or gs://BUCKET/PATH"):
        shard_place(url)


def test_an_unknown_option_of_a_url_is_named() -> None:
    with pytest.raises(SourceError, match="unknown option regoin in the URL"):
        shard_place("s3://bucket/run?regoin=eu-west-1")
