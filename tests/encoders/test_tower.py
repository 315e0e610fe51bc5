"""How batches share the threads of a tower, on fake graphs that say what they were asked for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.openvino.tower import Claim, CompiledTower, split_rows


class FakeRequest:
    """Computes a part when it is waited for: the double of its first input."""

    def __init__(self, graph: "FakeGraph") -> None:
        self.graph = graph
        self.data: NDArray[Any] = np.zeros(0)

    def start_async(self, part: Sequence[NDArray[Any]], share_inputs: bool) -> None:
        assert share_inputs
        if self.graph.broken:
            raise RuntimeError("it does not start")
        self.graph.running += 1
        self.graph.most_running = max(self.graph.most_running, self.graph.running)
        self.data = 2 * part[0]

    def wait(self) -> None:
        self.graph.running -= 1
        self.graph.computed += 1

    def get_output_tensor(self) -> "FakeRequest":
        return self


class FakeGraph:
    """A compiled graph with some streams."""

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.broken = False
        self.running = self.most_running = self.computed = 0

    def create_infer_request(self) -> FakeRequest:
        return FakeRequest(self)

    def get_property(self, name: str) -> int:
        assert name == "NUM_STREAMS"
        return self.streams


def tower_of(threads: int) -> tuple[CompiledTower, FakeGraph, FakeGraph]:
    together, side_by_side = FakeGraph(1), FakeGraph(threads)
    return CompiledTower(together, side_by_side), together, side_by_side


def parts_of(count: int) -> list[tuple[NDArray[Any], ...]]:
    return [(np.full(1, number),) for number in range(count)]


@given(st.integers(0, 200), st.integers(2, 20), st.integers(1, 64))
def test_parts_hold_every_row_once_and_leave_no_stream_without_work(rows: int, size: int, streams: int) -> None:
    parts = split_rows(np.arange(rows), size, streams)
    assert np.concatenate([[], *parts]).tolist() == list(range(rows))
    assert all(0 < len(part) <= size for part in parts)
    assert rows < streams or len(parts) % streams == 0


@pytest.mark.parametrize(("threads", "half"), [(2, 1), (3, 2), (8, 4)])
def test_a_batch_gets_all_threads_unless_another_is_prepared_or_running(threads: int, half: int) -> None:
    tower, _, _ = tower_of(threads)
    first, second = tower.claim(), tower.claim()
    assert (first.streams, second.streams) == (threads, half)
    tower.run(parts_of(1), first)
    assert tower.claim().streams == half, "the second is still waiting"
    tower.run(parts_of(1), second)
    assert tower.claim().streams == threads


def test_a_batch_that_is_dropped_without_being_run_gives_its_threads_back() -> None:
    tower, _, _ = tower_of(4)
    claim = tower.claim()
    assert tower.claim().streams == 2
    del claim
    assert tower.claim().streams == 4


def test_a_batch_uses_no_more_streams_than_it_claimed() -> None:
    tower, _, side_by_side = tower_of(4)
    first, second = tower.claim(), tower.claim()
    assert [int(output[0]) for output in tower.run(parts_of(8), second)] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert side_by_side.most_running == 2
    tower.run(parts_of(8), first)
    assert side_by_side.most_running == 4


def test_all_threads_compute_a_single_part_together() -> None:
    tower, together, side_by_side = tower_of(4)
    tower.run(parts_of(1), tower.claim())
    assert (together.computed, side_by_side.computed) == (1, 0)


def test_a_tower_with_one_thread_computes_parts_one_after_the_other() -> None:
    graph = FakeGraph(1)
    tower = CompiledTower(graph)
    assert [int(output[0]) for output in tower.run(parts_of(3), tower.claim())] == [0, 2, 4]
    assert graph.most_running == 1


def test_parts_that_do_not_start_give_their_streams_back() -> None:
    tower, _, side_by_side = tower_of(3)
    side_by_side.broken = True
    for _ in range(4):
        with pytest.raises(RuntimeError, match="does not start"):
            tower.run(parts_of(6), tower.claim())
    side_by_side.broken = False
    assert len(tower.run(parts_of(6), tower.claim())) == 6
    assert tower.claim().streams == 3


def test_two_batches_that_both_claim_all_streams_do_not_wait_for_each_other_for_ever() -> None:
    tower, _, _ = tower_of(2)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(tower.run, parts_of(40), Claim(2)) for _ in range(50)]
        assert all(len(run.result(timeout=30)) == 40 for run in runs)
