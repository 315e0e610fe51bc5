"""The order of all rows of an index for one query vector, computed only as far as a page needs it.

All pages of one search must be cut from one order; otherwise they repeat some rows and lose others. So the order does
not depend on the page. It begins with the *front*: the rows that the index finds at a fixed depth. Every other row
follows, by exact search. For an exact index this is the order of the cosines. For an approximate index, rows that the
index missed come right after the front. Equal scores are in row order within each of the two parts. Every allowed row
is in the order once, so a search returns k results if k rows are allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import VectorIndex

FRONT_ROWS = 96
"""Rows of the front: three pages of the search page (24) and the row that says whether another page follows.

An approximate index finds and orders them anyway, for the recall that it promises at 50; the rows behind them take an
exact search. The front finds fewer of the true rows from 65 to 96 (0.90 of them where the first 50 have 0.99);
the others follow it."""

FOLD_BLOCK_ROWS = 128
MAX_FOLDED_ROWS = 40 * FOLD_BLOCK_ROWS
"""With folding, a list ends after this many ranked rows; the best ``FOLD_BLOCK_ROWS`` are tried first."""
COMPARED_ROWS = 32
"""Rows whose near-duplicates are found by one matrix product. A page needs few of a block's rows."""

NEAR_DUPLICATE_COSINE = 0.97
"""Least cosine between the vectors of near-duplicates."""

Rows: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float32]


def front_rows(index: VectorIndex) -> int:
    """How many rows the front has: not more than an approximate index finds for every shorter list as well."""
    return FRONT_ROWS if index.spec.exact else min(FRONT_ROWS, index.spec.depth)


class BeyondFront(Exception):
    """More rows are asked for than the front has, and only the front is to be searched."""


class Order(Protocol):
    """An order of rows of an index. Pages are cut from it."""

    @property
    def index(self) -> VectorIndex: ...

    def first(self, count: int) -> tuple[Rows, Scores]:
        """The first ``count`` rows of the order (all, if fewer exist) and their cosines. Raises BeyondFront."""
        ...


class Ranking:
    """The order of the rows of one index for one unit vector of shape (dim,), float32."""

    def __init__(
        self,
        index: VectorIndex,
        vector: Vectors,
        *,
        front: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
        without: Sequence[int] = (),
        front_only: bool = False,
    ) -> None:
        """``allowed``, of shape (rows,), is true for rows that may be found; ``without`` are rows to leave out.

        ``front`` is the number of rows of the front, by default that of ``front_rows``.
        ``front_only`` means that no row is searched for behind the front, which takes an exact search.
        """
        front = front_rows(index) if front is None else front
        self.index, self.front_rows = index, front
        self._front_only = front_only
        self._vector = vector
        self._allowed = allowed
        self._without = sorted(set(without))
        hits = index.search(vector[None], front + len(self._without), allowed=allowed)
        rows, scores = hits.rows[0], hits.scores[0]
        if self._without or (len(rows) and rows[-1] < 0):
            kept = (rows >= 0) & ~np.isin(rows, self._without)
            rows, scores = rows[kept], scores[kept]
        self._rows: Rows = rows[:front]
        self._scores: Scores = scores[:front]

    @property
    def front(self) -> tuple[Rows, Scores]:
        """The rows of the front and their cosines, best first: ``front_rows`` of them or fewer."""
        return self._rows, self._scores

    @cached_property
    def total(self) -> int:
        """How many rows the order has."""
        if self._allowed is None:
            return self.index.spec.rows - len(self._without)
        return int(np.count_nonzero(self._allowed)) - int(np.count_nonzero(self._allowed[self._without]))

    def first(self, count: int) -> tuple[Rows, Scores]:
        """The first ``count`` rows of the order (all, if fewer exist) and their cosines, best first.

        Raises BeyondFront if ``front_only`` and the front has fewer.
        """
        if count > len(self._rows) and len(self._rows) < self.total:
            if self._front_only:
                raise BeyondFront
            more = min(count, self.total) - len(self._rows)
            rows, scores = self._behind(more)
            return np.concatenate([self._rows, rows]), np.concatenate([self._scores, scores])
        return self._rows[:count], self._scores[:count]

    def _behind(self, count: int) -> tuple[Rows, Scores]:
        """The best ``count`` rows that are not in the front, by exact search; at least ``count`` such rows exist."""
        rows = self.index.spec.rows
        left = np.ones(rows, dtype=np.bool_) if self._allowed is None else self._allowed.copy()
        left[self._without] = False
        left[self._rows] = False
        hits = self.index.exact_search(self._vector[None], count, allowed=left)
        return hits.rows[0], hits.scores[0]


@dataclass(frozen=True, slots=True)
class RankedPage:
    """The rows of one page, best first, with their cosines and the number of near-duplicates folded into each."""

    rows: list[int]
    scores: list[float]
    duplicates: list[int]
    more: bool
    """Whether another row follows this page."""

    def first(self, count: int) -> "RankedPage":
        """The first ``count`` rows; if that is not all of them, no other row follows."""
        more = self.more and count >= len(self.rows)
        return RankedPage(self.rows[:count], self.scores[:count], self.duplicates[:count], more)


def cut_page(
    ranking: Order,
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
        rows, scores = above(*ranking.first(FOLD_BLOCK_ROWS), min_score)
        kept, counts = fold(ranking.index.vectors_of(rows), wanted, None if content is None else content[rows])
        if len(kept) < wanted and len(rows) == FOLD_BLOCK_ROWS:
            rows, scores = above(*ranking.first(MAX_FOLDED_ROWS), min_score)
            kept, counts = fold(ranking.index.vectors_of(rows), wanted, None if content is None else content[rows])
        rows, scores = rows[kept], scores[kept]
    else:
        rows, scores = above(*ranking.first(wanted), min_score)
        counts = [0] * len(rows)
    part = slice(offset, offset + k)
    return RankedPage(rows[part].tolist(), scores[part].tolist(), counts[part], len(rows) > offset + k)


def fold(vectors: Vectors, count: int, content: NDArray[np.integer[Any]] | None = None) -> tuple[list[int], list[int]]:
    """Ranked rows without near-duplicates of a better row that is kept; at most ``count`` of them.

    ``vectors`` are the unit vectors of the rows in ranked order, shape (n, dim). Near-duplicates have a cosine of at
    least ``NEAR_DUPLICATE_COSINE``, or equal ``content``, shape (n,). A row is compared only with kept rows, so that a
    chain of small steps does not fold into one row. Returns the places of the kept rows, and the number of rows folded
    into each. The number counts only rows of the same ``FOLD_BLOCK_ROWS``, so it does not depend on ``n``.
    """
    kept: list[int] = []
    counts: list[int] = []
    for start in range(0, len(vectors), FOLD_BLOCK_ROWS):
        part = slice(start, start + FOLD_BLOCK_ROWS)
        block, ours = vectors[part], None if content is None else content[part]
        taken = np.zeros(len(block), np.bool_)
        if kept:
            taken |= (vectors[kept] @ block.T >= NEAR_DUPLICATE_COSINE).any(axis=0)
        if kept and content is not None:
            taken |= np.isin(content[part], content[kept])
        first, near, alone = -COMPARED_ROWS, np.empty((0, len(block)), np.bool_), list[bool]()
        for place in range(len(block)):
            if taken[place]:
                continue
            taken[place] = True
            if place >= first + COMPARED_ROWS:
                first = place - place % COMPARED_ROWS
                near = np.asarray(block[first : first + COMPARED_ROWS] @ block.T >= NEAR_DUPLICATE_COSINE)
                if ours is not None:
                    near |= ours[first : first + COMPARED_ROWS, None] == ours
                alone = (near.sum(axis=1) <= 1).tolist()
            kept.append(start + place)
            if alone[place - first]:  # near to itself at most, as most rows are
                counts.append(0)
            else:
                folded = near[place - first] & ~taken
                taken |= folded
                counts.append(int(folded.sum()))
            if len(kept) == count:
                return kept, counts
    return kept, counts


def above(rows: Rows, scores: Scores, least: float | None) -> tuple[Rows, Scores]:
    """Ranked rows up to the first whose score is below ``least``."""
    if least is None:
        return rows, scores
    below = scores < least
    end = int(below.argmax()) if below.any() else len(rows)
    return rows[:end], scores[:end]
