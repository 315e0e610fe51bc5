"""Workers of one host agree on what they serve by files in a folder."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from clip_retrieval.errors import SwapInProgress, SwapRefused
from clip_retrieval.serving.rollout import Report, Rollout, Wanted

OTHER = os.getppid()
"""The number of a process that lives; the tests let it be another worker."""
GONE = 2**22 + 1
"""The number of no process: it is above the greatest one of Linux."""


def test_the_other_workers_learn_what_is_wanted_once(tmp_path: Path) -> None:
    leader, other = Rollout(tmp_path), Rollout(tmp_path, OTHER)
    assert other.news() is None
    with leader.lead("clip-retrieval:new") as lead:
        lead.ask("load")
        assert other.news() == Wanted(1, "clip-retrieval:new", "load", os.getpid())
        assert other.news() is None
        lead.ask("serve")
    assert other.news() == Wanted(1, "clip-retrieval:new", "serve", os.getpid())
    assert Rollout(tmp_path, OTHER).agreed() == "clip-retrieval:new"


def test_the_leader_waits_for_every_worker_that_lives(tmp_path: Path) -> None:
    other = Rollout(tmp_path, OTHER)
    Rollout(tmp_path, GONE)
    with Rollout(tmp_path).lead("new") as lead:
        lead.ask("load")
        assert lead.waiting_for("loaded") == [OTHER]
        other.report(Report(lead.number, "loaded"))
        assert lead.waiting_for("loaded") == []
        assert lead.waiting_for("serving") == [OTHER]
        other.report(Report(lead.number, "serving"))
        assert lead.waiting_for("serving") == []


def test_a_worker_that_left_is_not_waited_for(tmp_path: Path) -> None:
    other = Rollout(tmp_path, OTHER)
    with Rollout(tmp_path).lead("new") as lead:
        lead.ask("load")
        other.close()
        assert lead.waiting_for("loaded") == []


def test_a_worker_that_fails_stops_the_swap_and_its_reason_is_told(tmp_path: Path) -> None:
    leader, other = Rollout(tmp_path), Rollout(tmp_path, OTHER)

    def failing() -> None:
        with leader.lead("new") as lead:
            lead.ask("load")
            other.report(Report(lead.number, "failed", "no memory"))
            lead.waiting_for("loaded")

    with pytest.raises(SwapRefused, match=f"process number {OTHER} cannot serve it: no memory"):
        failing()
    wanted = other.news()
    assert wanted is not None
    assert wanted.step == "withdrawn"
    assert leader.agreed() is None


def test_one_swap_at_a_time(tmp_path: Path) -> None:
    leader, other = Rollout(tmp_path), Rollout(tmp_path, OTHER)
    with leader.lead("one"), pytest.raises(SwapInProgress, match="another swap is in progress"), other.lead("two"):
        pass
    with other.lead("two") as lead:
        assert lead.number == 1, "the first one never asked for anything"


def test_the_numbers_of_swaps_go_on(tmp_path: Path) -> None:
    leader = Rollout(tmp_path)
    for number in (1, 2, 3):
        with leader.lead("new") as lead:
            lead.ask("load")
            assert lead.number == number


def test_what_was_agreed_stays_when_the_next_swap_fails_or_its_leader_ends(tmp_path: Path) -> None:
    leader = Rollout(tmp_path)
    with leader.lead("first") as lead:
        lead.ask("load")
        assert leader.agreed() is None
        lead.ask("serve")
    for rollout in (leader, Rollout(tmp_path, GONE)):
        with suppress(ValueError), rollout.lead("second") as lead:
            lead.ask("load")
            assert leader.agreed() == "first"
            if rollout is leader:
                raise ValueError
        assert leader.agreed() == "first"
    with leader.lead("third") as lead:
        lead.ask("load")
        assert leader.agreed() == "first"


def test_a_worker_that_begins_with_what_was_agreed_has_no_news(tmp_path: Path) -> None:
    with Rollout(tmp_path).lead("new") as lead:
        lead.ask("serve")
        other = Rollout(tmp_path, OTHER)
        assert other.agreed() == "new"
        assert other.news() is None
        assert lead.waiting_for("serving") == []


def test_a_worker_that_began_before_all_agreed_has_news(tmp_path: Path) -> None:
    other = Rollout(tmp_path, OTHER)
    assert other.agreed() is None
    with Rollout(tmp_path).lead("new") as lead:
        lead.ask("serve")
        assert other.news() is not None


def test_a_swap_is_abandoned_when_its_leader_has_ended_before_all_agreed(tmp_path: Path) -> None:
    other = Rollout(tmp_path, OTHER)
    assert other.is_abandoned(Wanted(1, "new", "load", GONE))
    assert not other.is_abandoned(Wanted(1, "new", "serve", GONE))
    assert not other.is_abandoned(Wanted(1, "new", "load", os.getpid()))


def test_what_a_worker_that_has_ended_said_is_removed(tmp_path: Path) -> None:
    Rollout(tmp_path, GONE)
    with Rollout(tmp_path).lead("new") as lead:
        assert lead.others() == {}
    assert not list(tmp_path.glob(f"*{GONE}*"))


def test_every_worker_reads_what_one_of_them_told_and_followed(tmp_path: Path) -> None:
    one, other = Rollout(tmp_path, OTHER), Rollout(tmp_path)
    assert (other.told(), other.followed()) == (None, None)
    one.tell({"state": "swapping"})
    one.follow("clip-retrieval:new")
    assert (other.told(), other.followed()) == (({"state": "swapping"}, True), "clip-retrieval:new")
    Rollout(tmp_path, GONE).tell({"state": "swapping"})
    assert other.told() == ({"state": "swapping"}, False)
