"""How a batch is computed by one graph, on a fake graph that says what it was asked for."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.openvino.tower import CompiledTower, split_rows


class FakeGraph:
    """A compiled graph and its only request, which computes a part when it is waited for: the double of its input."""

    def __init__(self) -> None:
        self.is_broken = False
        self.running = self.most_running = 0
        self.data: NDArray[Any] = np.zeros(0)

    def create_infer_request(self) -> "FakeGraph":
        return self

    def start_async(self, part: Sequence[NDArray[Any]], share_inputs: bool) -> None:
        assert share_inputs
        if self.is_broken:
            raise RuntimeError("it does not start")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.data = 2 * part[0]

    def wait(self) -> None:
        time.sleep(0.0001)
        self.running -= 1

    def get_output_tensor(self) -> "FakeGraph":
        return self


def parts_of(count: int, first: int = 0) -> list[tuple[NDArray[Any], ...]]:
    return [(np.full(1, first + number),) for number in range(count)]


@given(st.integers(0, 200), st.integers(1, 20))
def test_parts_hold_every_row_once_and_are_few_and_alike(rows: int, size: int) -> None:
    parts = split_rows(np.arange(rows), size)
    assert np.concatenate([[], *parts]).tolist() == list(range(rows))
    assert len(parts) == -(-rows // size)
    lengths = {len(part) for part in parts}
    assert not lengths or (max(lengths) <= size and max(lengths) - min(lengths) <= 1)


def test_each_part_has_its_own_output_in_order() -> None:
    tower = CompiledTower(FakeGraph())
    assert [int(output[0]) for output in tower.run(parts_of(3))] == [0, 2, 4]
    assert tower.run([]) == []


def test_batches_of_several_threads_wait_for_each_other() -> None:
    graph = FakeGraph()
    tower = CompiledTower(graph)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(tower.run, parts_of(5, 10 * batch)) for batch in range(20)]
        outputs = [[int(output[0]) for output in run.result(timeout=30)] for run in runs]
    assert outputs == [[2 * (10 * batch + part) for part in range(5)] for batch in range(20)]
    assert graph.most_running == 1


def test_a_batch_that_does_not_start_keeps_no_other_from_it() -> None:
    graph = FakeGraph()
    tower = CompiledTower(graph)
    graph.is_broken = True
    with pytest.raises(RuntimeError, match="does not start"):
        tower.run(parts_of(2))
    graph.is_broken = False
    assert len(tower.run(parts_of(2))) == 2
