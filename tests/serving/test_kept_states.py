"""States that next pages come from: which are kept, for how long, and what is said of the others."""

import dataclasses
from typing import cast

import pytest

from clip_retrieval.errors import StateGone
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.kept_states import KeptStates


@dataclasses.dataclass(eq=False)
class State:
    version: str


def state(version: str) -> SearchableCollection:
    return cast("SearchableCollection", State(version))


PRESENT = state("present")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_state_is_kept_for_its_time_after_it_was_last_used() -> None:
    clock = Clock()
    states = KeptStates(seconds=60, clock=clock)
    kept = state("a")
    states.keep(kept)
    clock.now = 59
    assert states.find("a", PRESENT) is kept
    states.keep(kept)
    clock.now = 118
    assert states.find("a", PRESENT) is kept
    clock.now = 120
    with pytest.raises(StateGone, match="start again at the first page"):
        states.find("a", PRESENT)


def test_the_present_state_is_found_without_being_kept() -> None:
    assert KeptStates().find("present", PRESENT) is PRESENT


def test_the_first_of_two_with_one_version_is_that_of_the_first_page() -> None:
    states = KeptStates()
    first = state("present")
    states.keep(first)
    states.keep(PRESENT)
    assert states.find("present", PRESENT) is first


def test_the_number_of_states_is_bounded() -> None:
    states = KeptStates(most=2)
    for version in "abc":
        states.keep(state(version))
    assert states.find("b", PRESENT).version == "b"
    with pytest.raises(StateGone):
        states.find("a", PRESENT)


def test_no_state_is_kept_that_shows_a_removed_image() -> None:
    states = KeptStates()
    states.keep(state("a"))
    states.drop()
    with pytest.raises(StateGone):
        states.find("a", PRESENT)
