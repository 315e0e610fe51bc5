"""Workers of one host agree on what they serve by files in a folder."""

import os
from pathlib import Path

import pytest

from clip_retrieval.errors import SwapInProgress, SwapRefused
from clip_retrieval.serving.rollout import Report, Rollout, Wanted

OTHER = os.getppid()
"""The number of a process that lives; the tests let it be another worker."""


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
    Rollout(tmp_path, 2**22 + 1)  # above the greatest process number of Linux
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
