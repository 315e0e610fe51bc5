"""Thumbnails of added images come back as they were, from a file or, where there is no room for one, from memory."""

import resource
from contextlib import suppress
from pathlib import Path

import pytest

from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.live.thumbnail_spool import ThumbnailSpool

THUMBNAILS = {
    7: Thumbnail(b"small seven", b"large seven"),
    8: Thumbnail(b"small eight", None),
    9: Thumbnail(b"small nine", b""),
}


def filled(folder: Path | None) -> ThumbnailSpool:
    spool = ThumbnailSpool(folder)
    for row, thumbnail in THUMBNAILS.items():
        spool.put(row, thumbnail)
    return spool


def open_files_in(folder: Path) -> list[Path]:
    """What this process has open in the folder."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(descriptor.readlink())
    return [path for path in found if folder in path.parents]


@pytest.mark.parametrize("in_memory", [True, False])
def test_thumbnails_come_back_as_they_were(tmp_path: Path, in_memory: bool) -> None:
    spool = filled(None if in_memory else tmp_path)
    assert {row: spool.get(row) for row in THUMBNAILS} == THUMBNAILS
    assert spool.get(1) is None
    spool.drop(7)
    spool.drop(1)
    assert spool.get(7) is None
    assert spool.get(8) == THUMBNAILS[8]


def test_the_file_has_no_name_and_goes_with_its_last_user(tmp_path: Path) -> None:
    spool = filled(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert spool.get(9) == THUMBNAILS[9]
    assert len(open_files_in(tmp_path)) == 1
    del spool
    assert open_files_in(tmp_path) == []


def test_without_room_or_folder_they_stay_in_memory(tmp_path: Path) -> None:
    assert filled(tmp_path / "missing").get(7) == THUMBNAILS[7]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, before[1]))
    try:
        spool = filled(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {row: spool.get(row) for row in THUMBNAILS} == THUMBNAILS
