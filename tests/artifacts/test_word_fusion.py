"""One order of what vectors and words found: literal matches count as vectors do, a word of a sentence hardly."""

import numpy as np
import pytest

from clip_retrieval.artifacts.word_fusion import EQUAL_FACTOR, first_ranks, fused_order, is_literal
from clip_retrieval.artifacts.word_search import WordHits

FRONT = np.arange(10)
NEAR = np.linspace(0.9, 0.0, 10, dtype=np.float32)
"""Row n has a cosine of 0.9 - n / 10; rows from 10 on are behind, with -0.1."""


def hits(*found: tuple[int, float, float]) -> WordHits:
    """Rows with their scores and shares, best first."""
    rows, scores, shares = zip(*found, strict=True) if found else ((), (), ())
    return WordHits(np.array(rows, np.int64), np.array(scores, np.float64), np.array(shares, np.float64))


def order(by_words: WordHits) -> list[int]:
    near = np.array([NEAR[row] if row < 10 else -0.1 for row in by_words.rows.tolist()], np.float32)
    rows: list[int] = fused_order(FRONT, NEAR, by_words, near)[0].tolist()
    return rows


@pytest.mark.parametrize(
    ("by_words", "first"),
    [
        (hits(), [0, 1, 2, 3]),
        (hits((5, 4.0, 1.0), (6, 4.0, 1.0)), [5, 6, 0, 1]),  # 4/9 + 1 and 3/9 + 1 are more than 1
        (hits((12, 4.0, 0.99), (13, 4.0, 0.99)), [0, 1, 12, 13]),  # behind the front: -1/9 + 0.96, between 8/9 and 7/9
        (hits((5, 4.0, 0.4), (6, 4.0, 0.4)), [0, 1, 2, 3]),  # 0.4 ** 4 hardly counts
        (hits((9, 8.0, 0.4), (6, 1.0, 0.1)), [0, 1, 2, 9]),  # a gap of 7/8: 0 + 0.77
        (hits((3, 8.0, 0.4)), [3, 0, 1, 2]),  # the only one
    ],
)
def test_rows_are_in_the_order_of_the_sums(by_words: WordHits, first: list[int]) -> None:
    found = order(by_words)
    assert found[:4] == first
    assert sorted(found) == sorted({*range(10), *by_words.rows.tolist()})


def test_each_row_keeps_its_cosine() -> None:
    rows, scores = fused_order(FRONT, NEAR, hits((12, 4.0, 1.0)), np.array([-0.1], np.float32))
    assert {row: round(score, 3) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)} == {
        **{row: round(0.9 - row / 10, 3) for row in range(10)},
        12: -0.1,
    }


def test_without_a_front_words_alone_order() -> None:
    found = fused_order(FRONT[:0], NEAR[:0], hits((4, 2.0, 1.0), (3, 1.0, 0.5)), np.zeros(2, np.float32))
    assert found[0].tolist() == [4, 3]
    one = fused_order(FRONT[:1], NEAR[:1], hits((0, 2.0, 1.0)), NEAR[:1])
    assert one[0].tolist() == [0], "a front of one row has no spread"


def test_what_has_half_of_the_words_or_stands_out_is_a_literal_match() -> None:
    assert is_literal(hits((1, 4.0, 0.6), (2, 3.0, 0.5), (3, 2.0, 0.4))).tolist() == [True, True, False]
    assert is_literal(hits((1, 4.0, 0.2), (2, 1.0, 0.1))).tolist() == [True, False]
    assert is_literal(hits((1, 4.0, 0.2), (2, 4.0, 0.2))).tolist() == [False, False]
    assert is_literal(hits()).tolist() == []


def test_the_first_ranks_have_all_their_rows_up_to_a_bound() -> None:
    assert first_ranks(hits(*((row, 20.0 - row, 1.0) for row in range(20))), 5).rows.tolist() == [0, 1, 2, 3, 4]
    assert len(first_ranks(hits(*((row, 1.0, 1.0) for row in range(30))), 5)) == 30
    assert len(first_ranks(hits(*((row, 1.0, 1.0) for row in range(500))), 5)) == 5 * EQUAL_FACTOR
