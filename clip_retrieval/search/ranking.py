"""All rows of an index in one order for one query vector, found only as far down as a page needs them.

Pages of one search must be cut from one order, or they repeat rows and lose others. An approximate search gives
another set of rows for each k, so the order is fixed without regard to the page that is asked for: first the *front*,
what the index finds at a fixed depth; then every other row, by exact search. With an exact index that is the order of
the cosines; with an approximate one, rows that the index missed stand right behind the front. Ties stand in row order
within each of the two. Every row that may be found is in the order once, so k results come when k exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import MIN_DEPTH, VectorIndex

FRONT_ROWS = MIN_DEPTH
"""Depth of the front: the first page at its longest, and one row to know whether there is another."""

FOLD_BLOCK_ROWS = 512
MAX_FOLDED_ROWS = 10 * FOLD_BLOCK_ROWS
"""Near-duplicates are folded among this many ranked rows; what ranks lower is not listed then."""

NEAR_DUPLICATE_COSINE = 0.97
"""Least cosine between the vectors of near-duplicates."""

Rows: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32]


class Ranking:
    """The order of the rows of one index for one unit vector of shape (dim,)."""

    def __init__(
        self,
        index: VectorIndex,
        vector: Vectors,
        *,
        front: int = FRONT_ROWS,
        allowed: NDArray[np.bool_] | None = None,
        without: Sequence[int] = (),
    ) -> None:
        """``allowed``, of shape (rows,), says which rows may be found; ``without`` are a few rows that may not."""
        self.index = index
        self._vector = vector
        self._allowed = allowed
        self._without = np.unique(np.array(without, dtype=np.int64))
        scores, rows = index.search(vector[None], front + len(self._without), allowed=allowed)
        kept = (rows[0] >= 0) & ~np.isin(rows[0], self._without)
        self._rows: Rows = rows[0][kept][:front]
        self._scores: Scores = scores[0][kept][:front]
        if allowed is None:
            self.total = index.spec.rows - len(self._without)
        else:
            self.total = int(allowed.sum()) - int(allowed[self._without].sum())

    def first(self, count: int) -> tuple[Rows, Scores]:
        """The first ``count`` rows of the order (all if there are fewer) and their cosines, best first."""
        if count > len(self._rows) and len(self._rows) < self.total:
            more = min(count, self.total) - len(self._rows)
            rows, scores = self._behind(more)
            return np.concatenate([self._rows, rows]), np.concatenate([self._scores, scores])
        return self._rows[:count], self._scores[:count]

    def _behind(self, count: int) -> tuple[Rows, Scores]:
        """The best ``count`` rows that are not in the front, by exact search; there are as many."""
        rows = self.index.spec.rows
        left = np.ones(rows, dtype=np.bool_) if self._allowed is None else self._allowed.copy()
        left[self._without] = False
        left[self._rows] = False
        hits = self.index.exact_search(self._vector[None], count, allowed=left)
        return hits.rows[0], hits.scores[0]


@dataclass(frozen=True, slots=True)
class RankedPage:
    """Rows of one page, best first, with their cosines and how many near-duplicates were folded into each."""

    rows: list[int]
    scores: list[float]
    duplicates: list[int]
    more: bool
    """Whether there is a row after these."""


def cut_page(
    ranking: Ranking,
    k: int,
    offset: int = 0,
    *,
    min_score: float | None = None,
    content: NDArray[np.integer[Any]] | None = None,
    dedupe: bool = False,
) -> RankedPage:
    """The ``k`` rows after the first ``offset``; the list ends at the first row whose cosine is below ``min_score``.

    With ``dedupe``, near-duplicates are folded first (see ``fold``); ``content``, of shape (rows,), then has equal
    numbers for equal images.
    """
    wanted = offset + k + 1
    if dedupe:
        rows, scores = _above(*ranking.first(FOLD_BLOCK_ROWS), min_score)
        kept, counts = fold(ranking.index.vectors_of(rows), wanted, None if content is None else content[rows])
        if len(kept) < wanted and len(rows) == FOLD_BLOCK_ROWS:
            rows, scores = _above(*ranking.first(MAX_FOLDED_ROWS), min_score)
            kept, counts = fold(ranking.index.vectors_of(rows), wanted, None if content is None else content[rows])
        rows, scores = rows[kept], scores[kept]
    else:
        rows, scores = _above(*ranking.first(wanted), min_score)
        counts = [0] * len(rows)
    part = slice(offset, offset + k)
    return RankedPage(rows[part].tolist(), scores[part].tolist(), counts[part], len(rows) > offset + k)


def fold(vectors: Vectors, count: int, content: NDArray[np.integer[Any]] | None = None) -> tuple[list[int], list[int]]:
    """The first ``count`` of ranked rows that are no near-duplicate of one kept before them.

    ``vectors`` are those of the rows in their order, unit, shape (n, dim). Near-duplicates have a cosine of at least
    ``NEAR_DUPLICATE_COSINE``, or equal ``content``, shape (n,). A row is compared with kept ones alone, so that a chain of small steps
    does not fold into one. Returns the places that are kept, and how many rows were folded into each; a row is counted
    where it stands in the same ``FOLD_BLOCK_ROWS`` rows, so no count depends on how far down was looked.
    """
    kept: list[int] = []
    counts: list[int] = []
    for start in range(0, len(vectors), FOLD_BLOCK_ROWS):
        block = vectors[start : start + FOLD_BLOCK_ROWS]
        near = np.asarray(block @ block.T >= NEAR_DUPLICATE_COSINE)
        taken = np.asarray((vectors[kept] @ block.T >= NEAR_DUPLICATE_COSINE).any(axis=0))
        if content is not None:
            ours = content[start : start + FOLD_BLOCK_ROWS]
            near |= ours[:, None] == ours
            taken |= np.isin(ours, content[kept])
        for place in range(len(block)):
            if taken[place]:
                continue
            taken[place] = True
            folded = near[place] & ~taken
            taken |= folded
            kept.append(start + place)
            counts.append(int(folded.sum()))
            if len(kept) == count:
                return kept, counts
    return kept, counts


def _above(rows: Rows, scores: Scores, least: float | None) -> tuple[Rows, Scores]:
    if least is None:
        return rows, scores
    below = scores < least
    end = int(below.argmax()) if below.any() else len(rows)
    return rows[:end], scores[:end]
