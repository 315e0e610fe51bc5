"""Which rows words find, and in which order: judged by the formula of BM25, computed row by row."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_retrieval.artifacts.word_search import (
    K1,
    LEAST_FREQUENT,
    MOST_FILTERED,
    MOST_ROWS,
    MOST_WORDS,
    B,
    Rows,
    Words,
    find,
    wanted_words,
)
from clip_retrieval.artifacts.words import FEW
from clip_retrieval.records import Modality


class Listed(Words):
    """Documents as lists of words; what is looked at is counted."""

    def __init__(self, *documents: str) -> None:
        self.held = [set(document.split()) for document in documents]
        self.looked_at = 0

    def documents(self, target: Modality) -> int:
        return len(self.held)

    def mean_length(self, target: Modality) -> float:
        return sum(map(len, self.held)) / max(1, len(self.held))

    def lengths(self, target: Modality, rows: Rows) -> NDArray[np.int32]:
        return np.array([len(self.held[row]) for row in rows.tolist()], np.int32)

    def count(self, target: Modality, word: str) -> int | None:
        count = sum(word in document for document in self.held)
        return count if count > FEW else None

    def rows_with(self, target: Modality, word: str, most: int) -> Rows:
        rows = [row for row, document in enumerate(self.held) if word in document][:most]
        self.looked_at += len(rows)
        return np.array(rows, np.int64)


def bm25(words: Listed, wanted: dict[str, float], row: int) -> float:
    """The sum that the docstring of the module has."""
    total = 0.0
    for word, weight in wanted.items():
        count = sum(word in document for document in words.held)
        if word in words.held[row]:
            idf = math.log(1 + (len(words.held) - count + 0.5) / (count + 0.5))
            length = len(words.held[row]) / words.mean_length("images")
            total += weight * idf * (K1 + 1) / (1 + K1 * (1 - B + B * length))
    return total


@pytest.mark.parametrize("seed", range(40))
def test_the_order_is_that_of_bm25(seed: int) -> None:
    rng = np.random.default_rng(seed)
    documents = [" ".join(rng.choice(list("abcdefg"), rng.integers(6))) for _ in range(rng.integers(1, 13))]
    weights = rng.choice([1.0, 0.5, -0.5], 10).tolist()
    wanted = {word: weights.pop() for word in rng.permutation(list("abcdefgxyz"))[: rng.integers(6)].tolist()}
    words = Listed(*documents)
    hits = find(words, "images", wanted)
    sought = {word for word, weight in wanted.items() if weight > 0}
    scores = {row: bm25(words, wanted, row) for row, held in enumerate(words.held) if held & sought}
    expected = sorted((row for row, score in scores.items() if score > 1e-12), key=lambda row: (-scores[row], row))
    assert sorted(hits.rows.tolist()) == sorted(expected)
    assert hits.scores.tolist() == pytest.approx([scores[row] for row in hits.rows.tolist()])
    assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)


def test_equal_scores_are_in_row_order() -> None:
    assert find(Listed("a x", "b y", "a z"), "images", {"a": 1.0}).rows.tolist() == [0, 2]


def test_the_share_is_that_of_the_querys_words() -> None:
    hits = find(Listed("red panda", "red", "owl"), "images", {"red": 1.0, "panda": 1.0, "unknown": 1.0})
    red, panda, unknown = (math.log(1 + (3 - n + 0.5) / (n + 0.5)) for n in (2, 1, 0))
    assert hits.rows.tolist() == [0, 1]
    assert hits.shares.tolist() == pytest.approx(
        [(red + panda) / (red + panda + unknown), red / (red + panda + unknown)]
    )
    assert find(Listed("red panda", "owl"), "images", {"red": 1.0, "panda": 2.0}).shares.tolist() == [1.0]


def test_only_allowed_rows_are_found() -> None:
    hits = find(Listed("a", "a", "a"), "images", {"a": 1.0}, np.array([False, True, False]))
    assert hits.rows.tolist() == [1]


def test_a_word_that_is_subtracted_moves_rows_down_and_finds_none() -> None:
    words = Listed("dog snow", "dog", "snow")
    assert find(words, "images", {"dog": 1.0, "snow": -0.5}).rows.tolist() == [1, 0]
    assert find(words, "images", {"snow": -1.0}).rows.tolist() == []


class TestFrequentWords:
    words = Listed(*["the", *["the dog"] * 30, *["the cat"] * 5, "the red cat"] * 10)
    """370 documents: all have "the", 300 "dog", 60 "cat", 10 "red"."""

    def test_one_beside_a_rarer_one_orders_and_finds_nothing(self) -> None:
        alone = find(self.words, "images", {"red": 1.0})
        beside = find(self.words, "images", {"the": 1.0, "red": 1.0})
        assert beside.rows.tolist() == alone.rows.tolist()
        assert len(alone) == 10
        assert (beside.scores > alone.scores).all()

    def test_the_rarest_of_them_finds_if_there_is_no_rarer_one(self) -> None:
        hits = find(self.words, "images", {"the": 1.0, "dog": 1.0, "cat": 1.0})
        assert len(hits) == 60
        assert all("cat" in self.words.held[row] for row in hits.rows.tolist())

    def test_alone_they_find_nothing_where_they_may_not(self) -> None:
        assert len(find(self.words, "images", {"the": 1.0, "dog": 1.0}, frequent_alone=False)) == 0
        assert len(find(self.words, "images", {"the": 1.0, "red": 1.0}, frequent_alone=False)) == 10

    def test_in_a_small_collection_few_are_never_frequent(self) -> None:
        words = Listed(*["a"] * LEAST_FREQUENT)
        assert len(find(words, "images", {"a": 1.0}, frequent_alone=False)) == LEAST_FREQUENT


def test_a_query_looks_at_a_bounded_number_of_rows() -> None:
    words = Listed(*[" ".join(f"w{n}" for n in range(40) if row % (n + 1) == 0) or "none" for row in range(9_000)])
    for wanted in ({f"w{n}": 1.0 for n in range(MOST_WORDS)}, {"w0": 1.0}, {"w0": 1.0, "w1": 1.0}):
        words.looked_at = 0
        assert len(find(words, "images", wanted)) > 0
        assert words.looked_at <= 2 * MOST_ROWS + 1


def test_a_frequent_word_is_found_behind_its_first_rows_where_a_filter_wants_that() -> None:
    words = Listed(*["dog"] * (MOST_FILTERED + 10))
    allowed = np.zeros(MOST_FILTERED + 10, bool)
    allowed[[5, MOST_ROWS + 5, MOST_FILTERED - 1]] = True
    assert find(words, "images", {"dog": 1.0}, allowed).rows.tolist() == [5, MOST_ROWS + 5, MOST_FILTERED - 1]
    assert words.looked_at <= MOST_FILTERED + MOST_ROWS + 1
    assert len(find(words, "images", {"dog": 1.0}, ~allowed)) == MOST_ROWS


def test_the_words_of_texts_are_counted_once_with_all_their_weights() -> None:
    assert wanted_words([("A dog, a DOG", 1.0), ("dog in snow", 0.5), ("snow", -0.5)]) == {
        "a": 1,
        "dog": 1.5,
        "in": 0.5,
    }
    assert len(wanted_words([(" ".join(f"w{n}" for n in range(500)), 1.0)])) == MOST_WORDS
    assert wanted_words([("!?", 1.0)]) == {}
