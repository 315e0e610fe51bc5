"""One order of what vectors and words found: literal matches count as vectors do, other words not."""

import numpy as np
import pytest

from clip_retrieval.artifacts.word_fusion import EQUAL_FACTOR, fused_order, is_literal, matches
from clip_retrieval.artifacts.word_search import NO_HITS, WordHits

FRONT = np.arange(10)
NEAR = np.linspace(0.9, 0.0, 10, dtype=np.float32)
"""Row n has a cosine of 0.9 - n / 10; rows from 10 on are behind, with -0.1."""


def hits(*found: tuple[int, float, float]) -> WordHits:
    """Rows with their shares of all words and of the names, best first."""
    if not found:
        return NO_HITS
    rows, shares, names = map(np.array, zip(*found, strict=True))
    return WordHits(rows, np.arange(len(rows), 0, -1.0), shares, names)


def order(by_words: WordHits) -> list[int]:
    near = np.array([NEAR[row] if row < 10 else -0.1 for row in by_words.rows.tolist()], np.float32)
    rows: list[int] = fused_order(FRONT, NEAR, by_words, near)[0].tolist()
    return rows


@pytest.mark.parametrize(
    ("by_words", "first"),
    [
        (hits(), [0, 1, 2, 3]),
        (hits((5, 1.0, 0.0), (6, 1.0, 0.0)), [5, 6, 0, 1]),  # all words: 4/9 + 1 and 3/9 + 1 are more than 1
        (hits((5, 0.9, 0.0), (6, 0.9, 0.0)), [0, 1, 2, 3]),  # words that the model knows, but one is missing
        (hits((5, 0.3, 1.0), (6, 0.3, 1.0)), [5, 6, 0, 1]),  # all names
        (hits((12, 0.5, 0.99), (13, 0.5, 0.99)), [0, 12, 13, 1]),  # behind the front: 0 + 0.96, between 1 and 8/9
        (hits((5, 0.4, 0.4), (6, 0.4, 0.4)), [0, 1, 2, 3]),  # 0.4 ** 4 hardly counts
    ],
)
def test_rows_are_in_the_order_of_the_sums(by_words: WordHits, first: list[int]) -> None:
    found = order(by_words)
    assert found[:4] == first
    assert sorted(found) == sorted({*range(10), *by_words.rows.tolist()})


def test_each_row_keeps_its_cosine() -> None:
    rows, scores = fused_order(FRONT, NEAR, hits((12, 1.0, 1.0)), np.array([-0.1], np.float32))
    assert {row: round(score, 3) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)} == {
        **{row: round(0.9 - row / 10, 3) for row in range(10)},
        12: -0.1,
    }


def test_without_a_front_words_alone_order() -> None:
    found = fused_order(FRONT[:0], NEAR[:0], hits((4, 1.0, 1.0), (3, 0.5, 0.5)), np.zeros(2, np.float32))
    assert found[0].tolist() == [4, 3]
    one = fused_order(FRONT[:1], NEAR[:1], hits((0, 1.0, 1.0)), NEAR[:1])
    assert one[0].tolist() == [0], "a front of one row has no spread"


def test_what_has_half_of_the_names_or_all_words_is_a_literal_match() -> None:
    assert is_literal(hits((1, 0.3, 0.6), (2, 0.3, 0.5), (3, 0.9, 0.4))).tolist() == [True, True, False]
    assert is_literal(hits((1, 1.0, 0.0), (2, 0.99, 0.0))).tolist() == [True, False]
    assert is_literal(hits()).tolist() == []


def test_words_that_the_model_knows_count_only_all_together() -> None:
    assert matches(hits((1, 1.0, 0.0), (2, 0.9, 0.0), (3, 0.1, 0.2)), 5).rows.tolist() == [1, 3]


def test_matches_are_the_first_ranks_with_all_their_rows_up_to_a_bound() -> None:
    def scored(*scores: float) -> WordHits:
        rows, one = np.arange(len(scores)), np.ones(len(scores))
        return WordHits(rows, np.array(scores), one, one)

    assert matches(scored(*(20.0 - row for row in range(20))), 5).rows.tolist() == [0, 1, 2, 3, 4]
    assert len(matches(scored(*[1.0] * 30), 5)) == 30
    assert len(matches(scored(*[1.0] * 500), 5)) == 5 * EQUAL_FACTOR
