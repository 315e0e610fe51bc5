"""Vectors of an encoder are unit vectors, or an error: what is not finite is near nothing."""

import numpy as np
import pytest

from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.errors import EncoderFailed


def test_rows_get_length_1_and_zeros_stay() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_row_that_is_not_finite_is_an_error_that_says_what_to_try(value: float) -> None:
    vectors = np.array([[1, 0], [value, value]], np.float32)
    with pytest.raises(EncoderFailed, match=r"not finite.*--precision f32"):
        unit_rows(vectors)
