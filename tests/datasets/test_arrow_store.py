"""A store that pyarrow reads: what its file systems raise becomes what a person can act on."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

pytest.importorskip("pyarrow")

from clip_retrieval.datasets.arrow_store import ArrowStore
from clip_retrieval.datasets.remote import open_objects
from clip_retrieval.datasets.remote_file import Reading, RemoteFile
from clip_retrieval.errors import SourceError


@dataclass
class LostFile:
    """A file whose reads fail in turn, then give its data."""

    failures: list[Exception]

    def read_at(self, size: int, offset: int) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        return b"0123456789"[offset : offset + size]


@dataclass
class LostSystem:
    """A file system of pyarrow with one such file; counts how often it is opened."""

    failures: list[Exception]
    opened: list[str] = field(default_factory=list)

    def open_input_file(self, path: str) -> LostFile:
        self.opened.append(path)
        return LostFile(self.failures)


@pytest.mark.parametrize(
    "failure", [ValueError("I/O operation on closed file"), OSError("CURL error [52]=Empty reply")]
)
def test_a_lost_connection_is_made_again(failure: Exception) -> None:
    """pyarrow 26 calls an object in Google's store whose connection was lost a closed file."""
    system = LostSystem([failure])
    store = ArrowStore(urlsplit("gs://shelf/a.tar"), system)
    file = RemoteFile(Reading(store, attempts=2, pause=0), "a.tar", "shelf/a.tar", 10)
    assert file.part(2, 3) == b"234"
    assert system.opened == ["shelf/a.tar"] * 2


def test_a_connection_that_stays_lost_is_a_connection_error() -> None:
    store = ArrowStore(urlsplit("gs://shelf/a.tar"), LostSystem([ValueError("I/O operation on closed file")]))
    with pytest.raises(ConnectionError, match="the connection was lost"):
        store.read("shelf/a.tar", 0, 5)


def test_a_hash_sign_in_a_name_is_read_as_the_error_says_that_it_is_written() -> None:
    with pytest.raises(SourceError, match="write # in a name as %23"):
        open_objects("s3://shelf/a#b")
    store = ArrowStore(urlsplit("s3://shelf/a%23b/100%25/day=1%3A30"), LostSystem([]))
    assert store.path == "shelf/a#b/100%25/day=1%3A30"


@pytest.mark.parametrize("url", ["s3://shelf/a//b", "gs://shelf/a//b/latest", "s3://shelf/a///b?anonymous=true"])
def test_a_folder_without_a_name_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match=r"//shelf/a//.*: a folder in a bucket has a name; write one slash there"):
        open_objects(url)


def test_slashes_at_the_ends_say_nothing() -> None:
    assert ArrowStore(urlsplit("s3://shelf//photos//"), LostSystem([])).path == "shelf/photos"
