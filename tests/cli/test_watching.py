"""A folder that is watched stays watched, whatever becomes of it."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from clip_retrieval.cli.watching import changes_of
from clip_retrieval.errors import SourceError

pytestmark = pytest.mark.slow  # each waits for the kernel to say what has changed
LOOKS = 10


def sees(looks: Iterator[bool]) -> bool:
    """Whether a change is seen soon; what follows of the same change is seen too."""
    found = any(islice(looks, LOOKS))
    while next(looks):
        pass
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


def test_a_change_is_seen_once(folder: Path) -> None:
    looks = changes_of(lambda: {folder})
    assert not next(looks)
    (folder / "a.png").touch()
    assert sees(looks)
    assert not next(looks)


def test_a_name_that_is_not_text_is_a_change(folder: Path) -> None:
    looks = changes_of(lambda: {folder})
    assert not next(looks)
    try:
        (folder / os.fsdecode(b"caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    assert sees(looks)
    (folder / "b.png").touch()
    assert sees(looks)


def test_a_folder_in_the_place_of_another_is_watched_in_its_stead(folder: Path) -> None:
    looks = changes_of(lambda: {folder})
    assert not next(looks)
    folder.rename(folder.with_name("old"))
    assert next(looks)
    folder.mkdir()
    assert sees(looks)
    (folder / "b.png").touch()
    assert sees(looks)


def test_other_folders_than_before_are_watched_from_then_on(folder: Path, tmp_path: Path) -> None:
    folders = {folder}
    looks = changes_of(lambda: folders)
    assert not next(looks)
    (other := tmp_path / "other").mkdir()
    folders = {folder, other}
    assert sees(looks)
    (other / "b.png").touch()
    assert sees(looks)


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gone cannot be watched: there is no such folder"):
        next(changes_of(lambda: {tmp_path / "gone"}))
