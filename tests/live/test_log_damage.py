"""A log that is not what was written is found out when it is opened, and the message says what to do."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.errors import ChangesDamaged, ChangesSchema
from clip_retrieval.live.image_bytes import image_to_bytes
from clip_retrieval.live.log import ChangeLog
from tests.live.samples import DIM, content, files_of, live_image, open_log, put

WHAT_TO_DO = r"bring back changes\.sqlite and changes\.sqlite-\* from a backup, or move them away"
ACKNOWLEDGED = "changes.sqlite-acknowledged"
WAL = "changes.sqlite-wal"
WAL_HEADER, FRAME_HEADER = 32, 24
"""Bytes, as https://www.sqlite.org/fileformat2.html#walformat has them."""


@pytest.fixture
def closed(log_path: Path) -> Path:
    """A log that was closed, with changes, a removal, a compaction and an answer; its WAL is gone."""
    with closing(open_log(log_path)) as log:
        put(log, live_image("a", 1))
        with log.transaction() as transaction:
            transaction.compacted(1, "v1")
        put(log, *(live_image(f"i{number}", number, thumbnail_bytes=1_500) for number in range(6)))
        with log.transaction() as transaction:
            transaction.remove("i3")
            transaction.keep_answer("key", b"answer" * 10)
    return log_path


@pytest.fixture
def killed(log_path: Path, tmp_path: Path) -> Path:
    """What a process leaves that is killed after six changes: nothing of them is in the database itself."""
    left = tmp_path / "left"
    with closing(open_log(log_path)) as log:
        for number in range(6):
            put(log, live_image(f"i{number}", number))
        shutil.copytree(log_path.parent, left)
    (left / f"{log_path.name}-shm").unlink()
    return left / log_path.name


def all_of(path: Path) -> tuple[object, ...]:
    """All that a log says."""
    with closing(open_log(path)) as log, log.transaction() as transaction:
        return content(log.after(0)), log.base(), log.sequence(), transaction.answer_to("key")


def damage(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x11
    path.write_bytes(data)


def error_after_damage(path: Path, file: str, place: int, right: tuple[object, ...]) -> str | None:
    """What is said about one flipped byte. If nothing is, the byte was in nobody's way. The files stay as they were."""
    before = files_of(path)
    damage(path.with_name(file), place)
    said = None
    try:
        assert all_of(path) == right
    except (ChangesDamaged, ChangesSchema) as error:
        said = str(error)
    for name in files_of(path):
        path.with_name(name).unlink()
    for name, data in before.items():
        path.with_name(name).write_bytes(data)
    return said


@pytest.mark.parametrize("stride", [1013, pytest.param(31, marks=pytest.mark.slow)])
def test_a_flipped_byte_anywhere_in_the_database_is_found_or_changes_nothing(closed: Path, stride: int) -> None:
    right = all_of(closed)
    said = [error_after_damage(closed, closed.name, at, right) for at in range(0, closed.stat().st_size, stride)]
    assert all(str(closed) in words for words in said if words is not None)
    assert any(said)


def test_a_flipped_byte_of_an_entry_is_found_and_the_change_named(closed: Path) -> None:
    right = all_of(closed)
    entry = image_to_bytes(live_image("i4", 4, thumbnail_bytes=1_500), DIM)
    start = closed.read_bytes().index(entry)
    for place in range(0, len(entry), 97):
        said = error_after_damage(closed, closed.name, start + place, right)
        assert said is not None
        assert "change 6 differs from its hash" in said
    damage(closed, start)
    with pytest.raises(ChangesDamaged, match=WHAT_TO_DO):
        open_log(closed)


@pytest.mark.parametrize("name", ["i0", "v1", "f" * 64, "key"])
def test_a_flipped_byte_of_an_id_a_version_a_fingerprint_or_a_key_is_found_where_it_is_read(
    closed: Path, name: str
) -> None:
    """Each may stand in the file several times: in its row, in the index over it, and where neither reads any more."""
    right = all_of(closed)
    data = closed.read_bytes()
    places = [at for at in range(len(data)) if data.startswith(name.encode(), at)]
    said = [error_after_damage(closed, closed.name, at, right) for at in places]
    assert any(said)


@pytest.mark.parametrize("stride", [2003, pytest.param(53, marks=pytest.mark.slow)])
def test_a_flipped_byte_of_the_wal_loses_no_acknowledged_change_in_silence(killed: Path, stride: int) -> None:
    """SQLite takes a damaged frame for the end of the WAL and drops what follows it."""
    right = (content_of(killed), None, 6, None)
    size = killed.with_name(WAL).stat().st_size
    said = [error_after_damage(killed, WAL, at, right) for at in range(0, size, stride)]
    assert None not in said
    assert any("changes up to 6 were made, those after 2 are missing" in words for words in said if words is not None)


def content_of(path: Path) -> list[tuple[int, str, bytes | None]]:
    """The entries of a copy of the log; its files stay as they are."""
    copy = path.parent.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent, copy)
    with closing(open_log(copy / path.name)) as log:
        return content(log.after(0))


def test_all_that_was_acknowledged_is_there_after_a_kill(killed: Path) -> None:
    assert [name for _, name, _ in content_of(killed)] == [f"i{number}" for number in range(6)]


def test_a_torn_tail_that_was_never_acknowledged_is_dropped(killed: Path) -> None:
    """The kill falls into the last commit: a part of it is in the WAL, and nobody was told of it."""
    right = content_of(killed)
    killed.with_name(ACKNOWLEDGED).write_bytes(acknowledged(killed, 5))
    wal = killed.with_name(WAL).read_bytes()
    page = int.from_bytes(wal[8:12], "big")
    for cut in (1, 10, page, page + FRAME_HEADER):
        copy = shutil.copytree(killed.parent, killed.parent.with_name(f"cut{cut}"))
        (copy / WAL).write_bytes(wal[:-cut])
        with closing(open_log(copy / killed.name)) as log:
            assert content(log.after(0)) == right[:5]
            assert put(log, live_image("next")) == 6


def acknowledged(path: Path, number: int) -> bytes:
    """The content of the file that names this change, as a log of that many changes writes it."""
    other = path.parent.with_name(f"log-of-{number}") / path.name
    with closing(open_log(other)) as log:
        for _ in range(number):
            put(log, live_image("a"))
    return other.with_name(ACKNOWLEDGED).read_bytes()


@pytest.mark.parametrize(
    ("lose", "after"),
    [
        (lambda path: path.with_name(WAL).unlink(), 0),
        (lambda path: path.with_name(WAL).write_bytes(path.with_name(WAL).read_bytes()[:-1]), 5),
        (lambda path: [file.unlink() for file in path.parent.iterdir() if file.name != ACKNOWLEDGED], 0),
    ],
    ids=["the WAL is gone", "the WAL is cut", "the database is gone"],
)
def test_acknowledged_changes_that_are_missing_are_said(
    killed: Path, lose: Callable[[Path], object], after: int
) -> None:
    lose(killed)
    words = f"changes up to 6 were made, those after {after} are missing; {WHAT_TO_DO}"
    for _ in range(2):
        with pytest.raises(ChangesDamaged, match=words):
            open_log(killed)


def test_what_is_moved_away_as_the_message_says_leaves_an_empty_log(killed: Path) -> None:
    killed.with_name(WAL).unlink()
    with pytest.raises(ChangesDamaged):
        open_log(killed)
    for file in killed.parent.glob("changes.sqlite*"):
        file.rename(killed.parent.parent / file.name)
    assert all_of(killed) == ([], None, 0, None)


def test_the_file_of_what_is_acknowledged_may_be_missing_or_empty_but_not_wrong(killed: Path) -> None:
    """A loss of power can leave it empty or full of zeros: it is not synced."""
    right = content_of(killed)
    note = killed.with_name(ACKNOWLEDGED)
    line = note.read_bytes()
    for harmless in (b"", bytes(len(line)), None):
        note.unlink(missing_ok=True)
        if harmless is not None:
            note.write_bytes(harmless)
        assert content_of(killed) == right
    for place in range(len(line)):
        note.write_bytes(line)
        damage(note, place)
        with pytest.raises(ChangesDamaged, match=rf"{ACKNOWLEDGED} is damaged; remove it if all changes are there"):
            open_log(killed)


@pytest.mark.parametrize("data", [b"no database", b"x" * 5_000], ids=["short", "long"])
def test_another_file_of_that_name_is_no_log(log_path: Path, data: bytes) -> None:
    log_path.parent.mkdir()
    log_path.write_bytes(data)
    with pytest.raises(ChangesDamaged, match=f"{log_path} is damaged: file is not a database"):
        open_log(log_path)
    assert log_path.read_bytes() == data


def test_another_database_of_that_name_is_no_log(log_path: Path) -> None:
    log_path.parent.mkdir()
    with closing(sqlite3.connect(log_path)) as other:
        other.execute("CREATE TABLE mine (a)")
    with pytest.raises(ChangesDamaged, match="it is not a log of changes"):
        open_log(log_path)


def test_the_log_of_a_newer_release_is_refused(closed: Path) -> None:
    with closing(sqlite3.connect(closed)) as other:
        other.execute("PRAGMA user_version = 2")
    with pytest.raises(
        ChangesSchema, match="has schema version 2, this release reads 1; use the release that wrote it"
    ):
        open_log(closed)


def test_damage_that_comes_while_the_log_is_open_is_said_by_the_next_reader(log: ChangeLog, log_path: Path) -> None:
    put(log, live_image("a"))
    with closing(sqlite3.connect(log_path)) as other:
        other.execute("UPDATE changes SET image = zeroblob(length(image))")
        other.commit()
    with pytest.raises(ChangesDamaged, match="change 1 differs from its hash"):
        log.after(0)
