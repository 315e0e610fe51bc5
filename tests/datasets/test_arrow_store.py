"""A store that pyarrow reads: what its file systems raise becomes what a person can act on."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

pytest.importorskip("pyarrow")

from clip_retrieval.datasets.arrow_store import ArrowStore
from clip_retrieval.datasets.remote_file import Reading, RemoteFile


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
