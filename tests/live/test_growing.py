"""An array that grows keeps what was there."""

import numpy as np
import pytest

from clip_retrieval.live.growing import FIRST_ROWS, GrowingArray


def test_a_view_stays_right_while_rows_are_added_and_memory_moves() -> None:
    array = GrowingArray(np.float32, (2,))
    array.append(np.ones((3, 2), np.float32))
    early = array.first(3)
    array.append(np.zeros((FIRST_ROWS, 2), np.float32))
    array.append(np.full((2 * FIRST_ROWS, 2), 2, np.float32))
    assert array.count == 3 + 3 * FIRST_ROWS
    assert early.tolist() == [[1, 1]] * 3
    assert array.first(5).tolist() == [[1, 1]] * 3 + [[0, 0]] * 2
    assert array.first(array.count)[-1].tolist() == [2, 2]


def test_a_view_is_read_only() -> None:
    array = GrowingArray(np.int32)
    array.append(np.arange(3, dtype=np.int32))
    with pytest.raises(ValueError, match="read-only"):
        array.first(2)[0] = 7
    array.append(np.arange(1, dtype=np.int32))
    assert array.first(4).tolist() == [0, 1, 2, 0]
