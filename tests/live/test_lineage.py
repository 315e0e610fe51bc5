"""Which artifacts the changes of a log can come after: no change of any log is ever hidden by an artifact."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.errors import ChangesDamaged, ChangesMissed
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.log import ChangeLog
from tests.live.samples import live_image, open_log

HELD = Held("v3", 3, "another log")
BUILT = Held("v0")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ChangeLog]:
    """An empty log in another folder."""
    with closing(open_log(tmp_path / "other" / "changes.sqlite")) as opened:
        yield opened


def put(log: ChangeLog, held: Held, *names: str) -> list[int]:
    """Put images as a service of this artifact does that has every change of the log; the numbers of the changes."""
    with log.transaction() as transaction:
        transaction.following(held, max(held.sequence, log.sequence()))
        return [transaction.put(live_image(name)) for name in names]


def found(log: ChangeLog, held: Held) -> list[str]:
    """The images that a service finds in the log when it starts with this artifact."""
    return [entry.image_id for entry in log.following(held, held.sequence)]


def test_the_first_change_is_numbered_on_from_those_that_its_artifact_holds(log: ChangeLog, log_path: Path) -> None:
    assert put(log, HELD, "a", "b") == [4, 5]
    assert log.base() == ("v3", 3)
    with closing(open_log(log_path)) as again:
        assert found(again, HELD) == ["a", "b"]
        assert put(again, HELD, "c") == [6]
    with pytest.raises(ChangesMissed, match=r"up to number 3 are in the artifact v3.*serve that artifact"):
        found(log, BUILT)


def test_a_log_without_a_change_is_any_artifact_s(log: ChangeLog) -> None:
    assert (found(log, HELD), found(log, BUILT)) == ([], [])
    with log.transaction() as transaction:
        transaction.following(HELD, 3)
    assert (log.sequence(), log.base()) == (0, None)
    assert put(log, BUILT, "a") == [1]


def test_a_first_change_that_is_undone_leaves_a_log_without_a_change(log: ChangeLog) -> None:
    def fail() -> None:
        with log.transaction() as transaction:
            transaction.following(HELD, 3)
            with transaction.savepoint():
                transaction.put(live_image("a"))
                raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    assert (log.sequence(), log.base()) == (0, None)
    assert put(log, HELD, "a") == [4]


@pytest.mark.parametrize("held", [HELD, HELD._replace(log=None)], ids=["named", "of an earlier release"])
def test_an_artifact_that_holds_more_changes_than_the_log_has_had_is_refused(log: ChangeLog, held: Held) -> None:
    put(log, BUILT, "a")
    words = r"artifact v3 holds the changes up to number 3 of another folder.* serve it with .*BENTO_CLIP_CHANGES"
    with pytest.raises(ChangesMissed, match=words):
        found(log, held)
    with pytest.raises(ChangesMissed, match=words):
        put(log, held, "b")
    assert log.sequence() == 1


def test_an_artifact_of_another_log_is_refused_also_where_the_log_has_had_more_changes(
    log: ChangeLog, other: ChangeLog
) -> None:
    put(log, BUILT, "a", "b", "c", "d")
    put(other, BUILT, "x", "y", "z")
    with pytest.raises(ChangesMissed, match="of another folder"):
        found(log, Held("v3", 3, other.identity()))
    assert found(log, Held("v3", 3, log.identity())) == ["d"]
    assert found(log, Held("v3", 3)) == ["d"], "an earlier release names no log: the numbers alone decide"


def test_a_log_follows_every_form_of_the_artifact_that_its_first_change_came_after(log: ChangeLog) -> None:
    put(log, HELD, "a", "b")
    assert found(log, HELD._replace(version="the same with other indexes")) == ["a", "b"]
    assert found(log, Held("v4", 4, log.identity())) == ["b"]
    with pytest.raises(ChangesMissed, match="of another folder"):
        found(log, Held("v4", 4, HELD.log))


def test_an_id_stays_and_no_two_logs_have_the_same(log: ChangeLog, log_path: Path, other: ChangeLog) -> None:
    put(log, HELD, "a")
    identity = log.identity()
    with closing(open_log(log_path)) as again:
        assert again.identity() == identity
    assert other.identity() not in {identity, HELD.log}


def test_the_log_of_an_earlier_release_gets_an_id_when_it_is_compacted(log: ChangeLog, log_path: Path) -> None:
    put(log, BUILT, "a")
    with closing(sqlite3.connect(log_path)) as earlier:
        earlier.execute("DROP TABLE logs")
        earlier.commit()
    with closing(open_log(log_path)) as again:
        assert found(again, BUILT) == ["a"]
        with pytest.raises(ChangesMissed):
            found(again, Held("v1", 1, "another log"))
        assert found(again, Held("v1", 1, again.identity())) == []


def test_an_id_that_is_damaged_is_said(log: ChangeLog, log_path: Path) -> None:
    put(log, BUILT, "a")
    with closing(sqlite3.connect(log_path)) as writer:
        writer.execute("UPDATE logs SET id = 'x'")
        writer.commit()
    with pytest.raises(ChangesDamaged, match="the id x differs from its hash"):
        open_log(log_path)
