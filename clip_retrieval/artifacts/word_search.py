"""Which rows have the words of a query, and how well: BM25 over an inverted index.

    score(row) = Σ over words w of weight(w) · idf(w) · (k₁ + 1) / (1 + k₁ (1 - b + b · length(row) / mean length))
    idf(w)     = ln(1 + (N - n(w) + ½) / (n(w) + ½))

Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with whether a row has a word in
place of how often, since captions and names rarely repeat one. N and n(w) count the rows that can be found, with all
changes, so a state has the same order before and after a compaction. Words of parts that subtract have weights below 0.

A query looks at ``MOST_ROWS`` rows at most. A word that many rows have finds nothing by itself: it orders what rarer
words of the query find, as far as there is room for it. If all words are such, the rarest of them finds rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.word_split import words_of
from clip_retrieval.artifacts.words import StoredWords
from clip_retrieval.records import Modality

K1, B = 1.2, 0.75
MOST_ROWS = 4_000
"""Rows that are looked at for all words of a query together."""
MOST_FILTERED = 10 * MOST_ROWS
"""Rows of one frequent word that are looked at for those that pass a filter."""
MOST_WORDS = 32
"""Different words of a query that count, the first ones."""
LEAST_FREQUENT = 20
FREQUENT_SHARE = 0.05
"""A word that more rows have than both, the share being that of all rows, finds nothing beside a rarer one."""

Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
_NO_ROWS: Rows = np.empty(0, np.int64)


class Words(ABC):
    """The words of one state of a collection. Immutable; safe from several threads."""

    @abstractmethod
    def documents(self, target: Modality) -> int:
        """How many rows can be found."""

    @abstractmethod
    def mean_length(self, target: Modality) -> float:
        """How many different words such a row has, on average."""

    @abstractmethod
    def lengths(self, target: Modality, rows: Rows) -> NDArray[np.int32]:
        """How many different words each of ``rows`` has."""

    @abstractmethod
    def count(self, target: Modality, word: str) -> int | None:
        """About how many rows have a word that many have; None for any other."""

    @abstractmethod
    def rows_with(self, target: Modality, word: str, most: int) -> Rows:
        """The first ``most`` rows that have the word and can be found, in order."""


class BaseWords(Words):
    """The words of an artifact without changes."""

    def __init__(self, stored: StoredWords) -> None:
        self.stored = stored

    def documents(self, target: Modality) -> int:
        return len(self.stored.lengths(target))

    def mean_length(self, target: Modality) -> float:
        return self.stored.total_length(target) / max(1, self.documents(target))

    def lengths(self, target: Modality, rows: Rows) -> NDArray[np.int32]:
        return self.stored.lengths(target)[rows]

    def count(self, target: Modality, word: str) -> int | None:
        return self.stored.count(target, word)

    def rows_with(self, target: Modality, word: str, most: int) -> Rows:
        return self.stored.rows_with(target, word, most)


@dataclass(frozen=True, slots=True, eq=False)
class WordHits:
    """Rows that words found, best first, equal ones in row order."""

    rows: Rows
    scores: Numbers
    """BM25, above 0."""
    shares: Numbers
    """What share of the query's words each row has, words counting by their idf: from 0 to 1, which is all of them."""
    names: Numbers
    """The same of those words of the query that are names; 0 if none is."""

    def __len__(self) -> int:
        return len(self.rows)

    def among(self, kept: Mask) -> "WordHits":
        """Those for which ``kept``, of shape (len(self),), is true."""
        return WordHits(self.rows[kept], self.scores[kept], self.shares[kept], self.names[kept])


NO_HITS = WordHits(_NO_ROWS, np.empty(0), np.empty(0), np.empty(0))


def wanted_words(texts: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The different words of texts with weights, in their order, each with the sum of its weights; none of weight 0."""
    wanted: dict[str, float] = {}
    for text, weight in texts:
        for word in dict.fromkeys(words_of(text)):
            wanted[word] = wanted.get(word, 0.0) + weight
    return dict([one for one in wanted.items() if one[1]][:MOST_WORDS])


def find(
    words: Words,
    target: Modality,
    wanted: Mapping[str, float],
    allowed: Mask | None = None,
    *,
    names: Container[str] = (),
    frequent_alone: bool = True,
) -> WordHits:
    """The rows of ``target`` that have words of ``wanted``, among those that are ``allowed``, shape (rows,).

    ``wanted`` has a weight for each word, which is not 0; ``names`` are those of them that are names. Unless
    ``frequent_alone``, a query that has nothing but frequent words finds nothing.
    """
    documents = words.documents(target)
    rows_of, counts = _look_up(words, target, wanted)
    bound = max(LEAST_FREQUENT, int(FREQUENT_SHARE * documents))
    sought = [word for word in rows_of if wanted[word] > 0 and counts[word]]
    finding = [word for word in sought if counts[word] <= bound]
    if not finding:
        known = [word for word in wanted if wanted[word] > 0 and counts.get(word)]
        if not frequent_alone or not known:
            return NO_HITS
        rarest = min(known, key=lambda word: counts[word])
        if rarest not in rows_of:
            rows_of[rarest] = _first_rows(words, target, rarest, allowed)
        finding = [rarest]
    rows = np.unique(np.concatenate([rows_of[word] for word in finding]))
    if allowed is not None:
        rows = rows[allowed[rows]]
    lengths = words.lengths(target, rows) / max(words.mean_length(target), 1e-9)
    norms = (K1 + 1) / (1 + K1 * (1 - B + B * lengths))
    scores, held, named = np.zeros((3, len(rows)))
    whole = whole_named = 0.0
    for word, weight in wanted.items():  # the order of the query, so that sums round the same in every state
        if word not in rows_of:
            continue
        idf = weight * np.log1p((documents - counts[word] + 0.5) / (counts[word] + 0.5))
        has = _among(rows, rows_of[word])
        scores += np.where(has, idf * norms, 0)
        if weight > 0:
            whole += idf
            held += np.where(has, idf, 0)
            if word in names:
                whole_named += idf
                named += np.where(has, idf, 0)
    order = np.lexsort((rows, -scores))
    shares, of_names = held / max(whole, 1e-9), named / max(whole_named, 1e-9)
    hits = WordHits(rows[order], scores[order], shares[order], of_names[order])
    return hits.among(hits.scores > 0)


def _look_up(words: Words, target: Modality, wanted: Mapping[str, float]) -> tuple[dict[str, Rows], dict[str, int]]:
    """The rows of each word for which there is room, rarer words first, and how many rows have each word."""
    known = {word: words.count(target, word) for word in wanted}
    counts = {word: count for word, count in known.items() if count is not None}
    rows_of: dict[str, Rows] = {}
    left = MOST_ROWS
    for word in sorted(wanted, key=lambda word: counts.get(word, 0)):
        if counts.get(word, 0) > left:
            continue
        rows = words.rows_with(target, word, left + 1)
        if len(rows) > left:
            counts.setdefault(word, len(rows))
            continue
        rows_of[word], counts[word] = rows, len(rows)
        left -= len(rows)
    return rows_of, counts


def _first_rows(words: Words, target: Modality, word: str, allowed: Mask | None) -> Rows:
    """The first ``MOST_ROWS`` rows that have the word and are allowed, in order."""
    if allowed is None:
        return words.rows_with(target, word, MOST_ROWS)
    rows = words.rows_with(target, word, MOST_FILTERED)
    return rows[allowed[rows]][:MOST_ROWS]


def _among(rows: Rows, others: Rows) -> Mask:
    """Which of ``rows`` are among ``others``, which are in order."""
    if not len(others):
        return np.zeros(len(rows), np.bool_)
    places = np.minimum(np.searchsorted(others, rows), len(others) - 1)
    found: Mask = others[places] == rows
    return found
