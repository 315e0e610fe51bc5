"""The file of thumbnails: joined to the records by row, the same bytes each time, within its budget, read-only."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.artifacts.thumbnails import FORMAT, Thumbnails, write_thumbnails
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.images.shrink import Plan, Thumbnail

PLAN = Plan(80, 160, 90)
MADE = [Thumbnail(bytes([row]) * 5000, None if row % 3 else bytes([row]) * 9000) for row in range(100)]
AMPLE = 10**9


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "artifact").mkdir()
    return tmp_path / "artifact" / "thumbnails.sqlite"


def test_rows_are_the_rows_of_the_records(out: Path) -> None:
    assert write_thumbnails(MADE, PLAN, out, AMPLE)
    with closing(Thumbnails.open(out)) as thumbnails:
        assert thumbnails.plan == PLAN
        assert [thumbnails.both(row) for row in range(len(MADE))] == MADE
        assert thumbnails.both(len(MADE)) is None
        assert thumbnails.get(len(MADE), "small") is None


def test_an_image_without_a_large_thumbnail_serves_its_small_one(out: Path) -> None:
    write_thumbnails(MADE, PLAN, out, AMPLE)
    with closing(Thumbnails.open(out)) as thumbnails:
        assert (thumbnails.get(0, "small"), thumbnails.get(0, "large")) == (MADE[0].small, MADE[0].large)
        assert thumbnails.get(1, "large") == thumbnails.get(1, "small") == MADE[1].small


@pytest.mark.parametrize("plan", [PLAN, Plan(80, None, 70)], ids=str)
def test_the_same_thumbnails_give_the_same_file(tmp_path: Path, plan: Plan) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    (tmp_path / "two").write_bytes(b"left by a run that was killed")
    for file in files:
        write_thumbnails(MADE, plan, file, AMPLE)
    assert files[0].read_bytes() == files[1].read_bytes()
    with closing(Thumbnails.open(files[0])) as thumbnails:
        assert thumbnails.plan == plan


def test_a_file_says_how_its_thumbnails_were_made(out: Path) -> None:
    for given, said in (({}, FORMAT), ({"made_as": 1}, 1)):
        write_thumbnails(MADE, PLAN, out, AMPLE, **given)
        with closing(Thumbnails.open(out)) as thumbnails:
            assert thumbnails.made_as == said


def test_a_file_is_at_most_as_large_as_the_budget_or_does_not_exist(out: Path) -> None:
    write_thumbnails(MADE, PLAN, out, AMPLE)
    size = out.stat().st_size
    assert write_thumbnails(MADE, PLAN, out, size)
    assert out.stat().st_size == size
    assert not write_thumbnails(MADE, PLAN, out, size - 1)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_file_of_another_kind_is_refused(out: Path, content: bytes) -> None:
    out.write_bytes(content)
    with pytest.raises(ArtifactDamaged, match="build it again"):
        Thumbnails.open(out)


def test_reading_leaves_no_file_beside_it_and_cannot_write(out: Path) -> None:
    write_thumbnails(MADE, PLAN, out, AMPLE)
    with closing(Thumbnails.open(out)) as thumbnails:
        assert thumbnails.get(0, "small")
        assert list(out.parent.iterdir()) == [out]
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
