"""A file whose bytes were decoded once is not decoded again, and nothing but its bytes vouches for it."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from clip_retrieval.build.seen_files import KEPT_DAYS, ImageFacts, SeenFiles, look_at
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.errors import ImageRejected, ImageTooLarge
from clip_retrieval.images.decode import Limits, content_hash
from tests.samples import MemoryBlob, png, square

LIMITS = Limits()
RED = MemoryBlob("red.png", png(square("red")))
FACTS = ImageFacts(content_hash(square("red")), 12, 12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "seen.sqlite"


@pytest.fixture
def seen(path: Path) -> Iterator[SeenFiles]:
    with SeenFiles(path) as opened:
        yield opened


def look(blob: MemoryBlob, seen: SeenFiles, limits: Limits = LIMITS) -> tuple[ImageFacts, Image.Image | None]:
    return look_at(blob, limits, seen, lambda _: False)


def test_a_file_is_decoded_the_first_time_and_known_from_then_on(path: Path) -> None:
    with SeenFiles(path) as seen:
        facts, image = look(RED, seen)
        assert facts == FACTS
        assert image is not None
        assert look(RED, seen) == (FACTS, None), "before it is written too"
    with SeenFiles(path) as seen:
        assert look(RED, seen) == (FACTS, None)
        assert look(replace(RED, name="elsewhere/copy.PNG"), seen) == (FACTS, None), "the name makes no difference"


def test_a_file_is_decoded_again_where_its_pixels_are_needed(seen: SeenFiles) -> None:
    look(RED, seen)
    asked: list[str] = []

    def needs(content_hash: str) -> bool:
        asked.append(content_hash)
        return True

    facts, image = look_at(RED, LIMITS, seen, needs)
    assert (facts, asked) == (FACTS, [FACTS.content_hash])
    assert image is not None


@pytest.mark.parametrize(
    ("blob", "limits"),
    [
        (replace(RED, data=png(square("red", size=13))), LIMITS),
        (replace(RED, name="red.dng"), LIMITS),
        (RED, replace(LIMITS, allow_truncated=True)),
    ],
    ids=["other bytes", "a suffix that may say how to read them", "other limits"],
)
def test_what_may_decode_to_something_else_is_decoded(seen: SeenFiles, blob: MemoryBlob, limits: Limits) -> None:
    look(RED, seen)
    assert look(blob, seen, limits)[1] is not None


def test_limits_hold_for_files_that_were_seen(seen: SeenFiles) -> None:
    look(RED, seen)
    with pytest.raises(ImageTooLarge):
        look(RED, seen, replace(LIMITS, max_bytes=10))
    with pytest.raises(ImageRejected, match="pixels"):
        look(RED, seen, replace(LIMITS, max_pixels=10))


def test_what_is_rejected_is_not_remembered(seen: SeenFiles) -> None:
    for _ in range(2):
        with pytest.raises(ImageRejected):
            look(MemoryBlob("bad.png", b"bad"), seen)


@pytest.mark.parametrize("damage", ["UPDATE seen SET width = 99", "UPDATE seen SET content_hash = x'00'"])
def test_a_damaged_row_is_found(path: Path, damage: str) -> None:
    with SeenFiles(path) as seen:
        look(RED, seen)
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    with SeenFiles(path) as seen:
        facts, image = look(RED, seen)
    assert facts == FACTS
    assert image is not None


def test_a_damaged_file_begins_anew(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with SeenFiles(path) as seen:
        assert look(RED, seen)[1] is not None
    with SeenFiles(path) as seen:
        assert look(RED, seen)[1] is None


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with SeenFiles(tmp_path / "file" / "seen.sqlite") as seen:
        assert look(RED, seen)[0] == FACTS
        assert look(RED, seen) == (FACTS, None)


def test_two_processes_may_use_the_file(path: Path) -> None:
    with SeenFiles(path) as first, SeenFiles(path) as second:
        look(RED, first)
        look(RED, second)
    with SeenFiles(path) as seen:
        assert look(RED, seen)[1] is None


class CountedFile(FileBlob):
    """A file that counts how often it is read."""

    reads = 0

    def part(self, offset: int, size: int) -> bytes:
        CountedFile.reads += 1
        return super().part(offset, size)


@pytest.mark.parametrize(("stay_open", "reads"), [(True, 1), (False, 3)])
def test_a_process_that_stays_reads_a_file_again_only_if_it_has_changed(
    path: Path, tmp_path: Path, stay_open: bool, reads: int
) -> None:
    CountedFile.reads = 0
    file = tmp_path / "a.png"
    file.write_bytes(png(square("red")))
    with SeenFiles(path, stay_open=stay_open, settled_s=-1) as seen:
        for _ in range(3):
            facts, _ = look_at(CountedFile(file, "a.png"), LIMITS, seen, lambda _: False)
            assert facts == FACTS
        assert CountedFile.reads == reads
        before = file.stat()
        file.write_bytes(png(square("blue")))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        facts, _ = look_at(CountedFile(file, "a.png"), LIMITS, seen, lambda _: False)
        assert facts.content_hash == content_hash(square("blue")), "whatever its date says"


def test_a_file_that_has_just_been_written_is_read_again(path: Path, tmp_path: Path) -> None:
    """Another write in the same tick of the clock would leave the same times."""
    CountedFile.reads = 0
    file = tmp_path / "a.png"
    file.write_bytes(png(square("red")))
    with SeenFiles(path, stay_open=True) as seen:
        for _ in range(2):
            look_at(CountedFile(file, "a.png"), LIMITS, seen, lambda _: False)
    assert CountedFile.reads == 2


def test_what_nobody_asked_for_in_a_season_is_removed(path: Path) -> None:
    other = MemoryBlob("blue.png", png(square("blue")))
    with SeenFiles(path, today=1000) as seen:
        look(RED, seen)
        look(other, seen)
    with SeenFiles(path, today=1000 + KEPT_DAYS - 1) as seen:
        assert look(RED, seen)[1] is None, "it is asked for"
    SeenFiles(path, today=1000 + KEPT_DAYS + 1).close()
    with SeenFiles(path) as seen:
        assert look(RED, seen)[1] is None
        assert look(other, seen)[1] is not None
