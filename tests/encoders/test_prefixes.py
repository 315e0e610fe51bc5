"""The distinct prefixes of a batch: what a causal tower computes from them must be what each text alone would give."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clip_retrieval.encoders.openvino.prefixes import FEW_ROWS, ROW_MULTIPLE, distinct_prefixes

texts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=20).map(sorted)


@given(texts)
def test_each_token_of_each_text_finds_its_own_prefix(ids: list[list[int]]) -> None:
    padded, distinct, prefix_of = distinct_prefixes(ids, 0)
    rows, ends = np.unravel_index(distinct, padded.shape)
    prefixes = [tuple(padded[row, : end + 1]) for row, end in zip(rows, ends, strict=True)]
    for tokens, found in zip(ids, prefix_of, strict=True):
        assert [prefixes[number] for number in found[: len(tokens)]] == list(accumulate((token,) for token in tokens))


@given(texts)
@example([[first, *[0] * 12] for first in range(5)])  # 65 prefixes
def test_no_prefix_is_computed_twice_and_padding_never(ids: list[list[int]]) -> None:
    _, distinct, prefix_of = distinct_prefixes(ids, 0)
    prefixes = {tuple(tokens[:end]) for tokens in ids for end in range(1, len(tokens) + 1)}
    multiple = ROW_MULTIPLE if len(prefixes) <= FEW_ROWS else 2 * ROW_MULTIPLE
    assert len(distinct) == -(-len(prefixes) // multiple) * multiple
    assert len(set(distinct.tolist()) - {0}) == len(prefixes) - 1
    assert prefix_of.max() < len(prefixes)


def test_an_example() -> None:
    padded, distinct, prefix_of = distinct_prefixes([[7, 1, 9], [7, 1, 2, 9], [7, 3, 9]], pad_id=5)
    assert padded.tolist() == [[7, 1, 9, 5], [7, 1, 2, 9], [7, 3, 9, 5]]
    # 7, 7 1, 7 1 9 | 7 1 2, 7 1 2 9 | 7 3, 7 3 9, and nine zeros
    assert distinct.tolist() == [0, 1, 2, 6, 7, 9, 10, *[0] * 9]
    assert prefix_of[:, :3].tolist() == [[0, 1, 2], [0, 1, 3], [0, 5, 6]]


@pytest.mark.parametrize(
    ("prefixes", "rows"),
    [(1, ROW_MULTIPLE), (FEW_ROWS, FEW_ROWS), (FEW_ROWS + 1, FEW_ROWS + 2 * ROW_MULTIPLE), (100, 128)],
)
def test_many_prefixes_are_rounded_up_further_than_few(prefixes: int, rows: int) -> None:
    _, distinct, _ = distinct_prefixes([(number,) for number in range(prefixes)], 0)
    assert distinct.tolist() == [*range(prefixes), *[0] * (rows - prefixes)]
