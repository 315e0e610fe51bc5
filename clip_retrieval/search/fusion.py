"""The orders of rows that pages of queries with words are cut from: by words alone, or by words and vectors.

``artifacts/word_fusion.py`` fuses the front of the order by vectors (``ranking.py``) with as many ranks of that by
words, whatever page is asked for; all other rows follow as the vectors order them.
"""

from collections.abc import Iterable

import numpy as np

from clip_retrieval.artifacts.word_fusion import fused_order, is_literal, matches
from clip_retrieval.artifacts.word_search import WordHits
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import VectorIndex
from clip_retrieval.search.hits import Finder
from clip_retrieval.search.ranking import Ranking, Rows, Scores, above


class WordOrder:
    """The rows that words found, best first, with their cosines; see ``ranking.Order``."""

    def __init__(self, index: VectorIndex, vector: Vectors, hits: WordHits) -> None:
        self.index = index
        self._vector, self._hits = vector, hits

    def first(self, count: int) -> tuple[Rows, Scores]:
        rows = self._hits.rows[:count]
        return rows, cosines(self.index, self._vector, rows)

    def found_by(self, rows: Iterable[int]) -> list[Finder]:
        """What found each of these rows."""
        return ["words" for _ in rows]


class FusedOrder:
    """The order by words and vectors, computed only as far as a page needs it; see ``ranking.Order``.

    With ``least``, rows of a smaller cosine are left out, except literal matches.
    """

    def __init__(self, ranking: Ranking, vector: Vectors, hits: WordHits, least: float | None = None) -> None:
        """``hits`` are among the rows that ``ranking`` orders."""
        self.index = ranking.index
        self._ranking, self._least = ranking, least
        front, scores = ranking.front
        found = matches(hits, ranking.front_rows)
        self._front, self._worded = front, found.rows
        self._only_words = np.setdiff1d(found.rows, front)
        known = dict(zip(front.tolist(), scores.tolist(), strict=True))
        more = cosines(self.index, vector, self._only_words)
        known |= zip(self._only_words.tolist(), more.tolist(), strict=True)
        rows, scores = fused_order(
            front, scores, found, np.array([known[row] for row in found.rows.tolist()], np.float32)
        )
        if least is not None:
            kept = (scores >= least) | np.isin(rows, found.rows[is_literal(found)])
            rows, scores = rows[kept], scores[kept]
        self._rows, self._scores = rows, scores

    def first(self, count: int) -> tuple[Rows, Scores]:
        more = count - len(self._rows)
        if more <= 0:
            return self._rows[:count], self._scores[:count]
        rows, scores = self._ranking.first(len(self._front) + more + len(self._only_words))
        rows, scores = above(rows[len(self._front) :], scores[len(self._front) :], self._least)
        others = ~np.isin(rows, self._only_words)
        rows, scores = rows[others][:more], scores[others][:more]
        return np.concatenate([self._rows, rows]), np.concatenate([self._scores, scores])

    def found_by(self, rows: Iterable[int]) -> list[Finder]:
        """What found each of these rows."""
        worded, alone = set(self._worded.tolist()), set(self._only_words.tolist())
        return ["words" if row in alone else "both" if row in worded else "vector" for row in rows]


def cosines(index: VectorIndex, vector: Vectors, rows: Rows) -> Scores:
    """The cosines of these rows with a unit vector of shape (dim,), each computed by itself."""
    if not len(rows):
        return np.empty(0, np.float32)
    found: Scores = np.einsum("nd,d->n", index.vectors_of(rows), vector).astype(np.float32)
    return found
