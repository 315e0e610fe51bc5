"""Memory for work beside requests: what is lent, who bears it, and what is refused."""

import pytest

from clip_retrieval.errors import SwapRefused
from clip_retrieval.serving.budget import MIB, Budget, Needs
from clip_retrieval.serving.memory_watch import MemoryWatch
from clip_retrieval.serving.room import Room
from clip_retrieval.serving.shared_state import SharedState

NEEDS = Needs(workers=1, decoding=100 * MIB, max_body=10 * MIB)


class Memory:
    """A worker with a limit of 1,000 MiB, whose process holds ``held`` bytes."""

    def __init__(self, held: int) -> None:
        self.held = held
        self.budget, self.room = Budget(), Room()
        self.watch = MemoryWatch(
            self.budget,
            self.room,
            needs=lambda: NEEDS,
            limit=lambda: 1000 * MIB,
            beside=lambda: 80 * MIB,
            held=lambda: self.held,
        )
        self.room.on_loan = self.watch.measure
        self.room.left = self.watch.left_beside_requests
        self.watch.measure()

    @property
    def total(self) -> int:
        """The bytes for requests now, bodies on their way among them."""
        bodies, images = self.budget.bodies, self.budget.images
        assert bodies.total is not None
        assert images.total is not None
        return bodies.total - bodies.lent + images.total - images.lent + self.budget.arriving


def test_without_a_limit_everything_is_lent() -> None:
    room = Room()
    with room.beside(2**50, "a model"), room.apart(2**50, "a compaction"):
        assert room.lent == 2**51
    assert room.lent == 0


def test_each_worker_bears_its_part_of_what_a_process_of_one_takes() -> None:
    shared = SharedState.create(4)  # two for workers that are replaced
    mine, other = (Room(shared, slot, workers=2) for slot in shared.slots[1:3])
    with mine.apart(101, "a compaction"), mine.beside(7, "a model"):
        assert (mine.lent, other.lent) == (58, 51)
    assert (mine.lent, other.lent) == (0, 0)


def test_what_is_lent_is_taken_from_requests_and_given_back() -> None:
    memory = Memory(held=200 * MIB)
    before = memory.total
    with memory.room.beside(100 * MIB, "a model"):
        assert before - memory.total == pytest.approx(100 * MIB, abs=3)
        memory.held += 90 * MIB
        memory.watch.measure()
        assert before - memory.total == pytest.approx(100 * MIB, abs=3), "the model does not count twice"
    assert before - memory.total == pytest.approx(90 * MIB, abs=3), "what it holds then is its own"


def test_the_least_for_requests_does_not_hide_what_is_lent() -> None:
    memory = Memory(held=500 * MIB)  # what a burst has left: less than the least would be left
    least = memory.total
    assert least == pytest.approx(NEEDS.least_for_requests, abs=3)
    memory.room.inside = 100 * MIB
    memory.watch.measure()
    assert least - memory.total == pytest.approx(100 * MIB, abs=3)


def test_nothing_is_lent_of_the_least_that_requests_need() -> None:
    memory = Memory(held=200 * MIB)
    left = memory.watch.left_beside_requests()
    assert left == NEEDS.left(1000 * MIB, 200 * MIB, 80 * MIB) - NEEDS.least_for_requests
    with memory.room.apart(left - 10 * MIB, "a compaction"):
        one_more = memory.room.beside(11 * MIB, "a model")
        with pytest.raises(SwapRefused, match=r"a model takes about 11 MiB .* in each worker, and a worker has 10 MiB"):
            one_more.__enter__()
        with memory.room.beside(10 * MIB, "a model"):
            assert memory.total == pytest.approx(NEEDS.least_for_requests, abs=3)
        with memory.room.beside(0, "a model that is shared"):
            pass
