"""When a supervisor stops to start workers, and which workers it takes for dead."""

import pytest

from clip_retrieval.serving.replacing import TRIES, Starts, StillWorkers
from clip_retrieval.serving.shared_state import SharedState


@pytest.fixture
def shared() -> SharedState:
    return SharedState.create(slots=4)


def test_workers_that_end_before_they_are_ready_are_started_a_few_times(
    shared: SharedState, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = Starts(shared)
    assert [starts.may_start(2) for _ in range(2 * TRIES + 2)] == [True] * (2 * TRIES) + [False] * 2
    assert shared.has_failed
    assert capsys.readouterr().err == "bento-clip: workers ended 6 times in a row before one was ready\n"


def test_workers_that_end_after_they_were_ready_are_replaced_for_ever(shared: SharedState) -> None:
    starts = Starts(shared)
    for number in range(50):
        assert starts.may_start(2)
        shared.slots[number % 2]["times_ready"] += 1
    assert not shared.has_failed


def test_a_worker_without_a_beat_is_named_once() -> None:
    shared = SharedState.create(slots=2)
    for slot, pid in zip(shared.slots, (11, 12), strict=True):
        slot["pid"], slot["is_ready"] = pid, 1
    still = StillWorkers(shared, checks=3)
    found = []
    for _ in range(8):
        shared.slots[0]["beat"] += 1
        found.append(still.look())
    assert found == [[], [], [], [12], [], [], [], []]


def test_a_worker_that_loads_is_given_its_time() -> None:
    shared = SharedState.create()
    shared.slots[0]["pid"] = 11
    still = StillWorkers(shared, checks=3)
    assert [still.look() for _ in range(10)] == [[]] * 10


def test_another_worker_in_the_same_place_begins_anew() -> None:
    shared = SharedState.create()
    still = StillWorkers(shared, checks=3)
    for pid in range(10, 20):
        shared.slots[0]["pid"], shared.slots[0]["is_ready"] = pid, 1
        assert [still.look() for _ in range(3)] == [[]] * 3
