"""Errors of disks and file handles become one sentence that says what is wrong, where, and what to do."""

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.errors import ArtifactDamaged, StorageFailed, StorageFull, StorageReadOnly
from clip_retrieval.storage import is_of_the_machine, sentence, storage

PLACE = Path("/some/place")


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (full(), r"the disk of .* is full \([\d,]+ MB are free\).*make room"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "full"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), r"/some/place would be larger than is allowed.*ulimit -f"),
        (OSError(errno.EFBIG, "no", "/from/here", None, "/to/there"), "a file at /to/there would be larger"),
        (PermissionError(errno.EACCES, "no", "/mine/file"), r"/mine/file may not be written.*XDG_CACHE_HOME"),
        (OSError(errno.EROFS, "no", "/mine/file"), "/mine/file may not be written or read .Read-only file system"),
        (OSError(errno.EMFILE, "no", "/mine/file"), r"open for /mine/file; the limit is \d+.*ulimit -n"),
        (OSError(errno.EIO, "no"), "fails at /some/place .Input/output error"),
        (RuntimeError("write error in x.faiss: 0 != 1 (No space left on device)"), "full"),
        (RuntimeError("basic_ios::clear: iostream error"), "/some/place .* check that disk and its free space"),
    ],
)
def test_each_kind_says_what_where_and_what_to_do(error: Exception, words: str) -> None:
    message = sentence(error, PLACE) or ""
    assert re.search(words, message), message
    assert "\n" not in message


def test_a_folder_that_could_not_be_copied_is_one_short_sentence(tmp_path: Path) -> None:
    """``shutil`` has a tuple of two paths and a reason for each file."""
    many = [(f"/a/very/long/path/{n}", f"/another/path/{n}", str(full())) for n in range(50)]
    message = sentence(shutil.Error(many), tmp_path) or ""
    assert "full" in message
    assert len(message) < 300


def test_of_a_copy_for_which_there_is_no_room_the_disk_of_the_copy_is_named(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "no", "/from/here", None, str(tmp_path / "there"))
    assert (sentence(error) or "").startswith(f"the disk of {tmp_path / 'there'} is full")


def test_an_output_that_is_full_is_no_disk() -> None:
    assert sentence(full()) == "the place of the output is full; make room there and try again"


def test_sqlite_on_a_full_disk_and_on_one_that_may_not_be_written(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    connection.executescript("PRAGMA max_page_count = 2; CREATE TABLE a (b BLOB)")
    with pytest.raises(StorageFailed, match=r"full.*kept"), storage(tmp_path, "the rest is kept"):
        connection.execute("INSERT INTO a VALUES (zeroblob(100000))")
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageFailed, match=f"{tmp_path} may not be written"), storage(tmp_path):
        connection.execute("INSERT INTO a VALUES (1)")
    connection.close()


def test_sqlite_says_the_same_for_a_folder_that_is_missing_and_for_a_missing_handle(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for place, words in {missing: f"{missing} may not be written", tmp_path: "too many files are open"}.items():
        with pytest.raises(StorageFailed, match=words), storage(place):
            sqlite3.connect(missing / "a.sqlite")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EACCES, StorageReadOnly),
        (errno.EROFS, StorageReadOnly),
        (errno.EIO, StorageFailed),
        (errno.EMFILE, StorageFailed),
    ],
)
def test_no_room_and_no_right_to_write_are_kinds_of_their_own(number: int, kind: type[StorageFailed]) -> None:
    with pytest.raises(StorageFailed) as caught, storage(PLACE):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind


def test_other_errors_and_our_own_pass_unchanged() -> None:
    own = ArtifactDamaged(f"the file is damaged ({full()})")
    others: list[Exception] = [own, ValueError("no"), FileExistsError("there"), sqlite3.IntegrityError("UNIQUE")]
    for error in others:
        assert sentence(error, PLACE) is None
        with pytest.raises(type(error)), storage(PLACE):
            raise error


def test_a_file_is_not_to_blame_where_no_handle_is_left() -> None:
    assert is_of_the_machine(OSError(errno.EMFILE, ""))
    assert not is_of_the_machine(PermissionError(errno.EACCES, ""))


HANDLES = """
import os, resource, sys
from pathlib import Path
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.storage import storage
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
while True:
    try:
        os.open(sys.argv[1], os.O_RDONLY)
    except OSError:
        break
with storage(Path("/some/place")):
    FileBlob(Path(sys.argv[1]), "a.png").read(10)
"""


def test_an_image_is_no_reject_where_no_handle_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", HANDLES, str(tmp_path / "a.png")], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("clip_retrieval.errors.StorageFailed: too many files are open for")
