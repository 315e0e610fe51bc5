"""One order of what vectors found and what words found.

    fused(row) = (cosine(row) - low) / (top - low) + max(gap(row)², share(row)⁴)

``top`` and ``low`` are the best and the last cosine of the front by vectors, so that the first part does not depend on
the scale of a model's cosines. It is a convex combination as in Bruch, Gai and Ingber, 2023, "An Analysis of Fusion
Functions for Hybrid Retrieval" (ACM TOIS 42, arXiv:2210.11934), with words weighted by how literal a match is:

- ``share`` is the share of the query's words that a row has: what has all of them counts as much as the best vector,
  what has one word of a sentence counts nearly nothing;
- ``gap`` is by how much the best row by words stands out from the next, as a share of its own score: a name or a number
  that one row has counts also in a long sentence.

Most words of a query say what an image shows, which vectors know better: reciprocal rank fusion (Cormack, Clarke and
Büttcher, 2009), which trusts both lists alike, lost more there than it won by names (``docs/evaluation.md``).
"""

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.word_search import Mask, Numbers, Rows, WordHits

LITERAL = 0.5
"""A row with this share of the words, or one that stands out so far, is a literal match."""
EQUAL_FACTOR = 10
"""So many times more rows than ranks are fused where many rows have one rank."""

Scores = NDArray[np.float32]


def first_ranks(hits: WordHits, count: int) -> WordHits:
    """The rows of the first ``count`` ranks, with all that are equal to them, but not ten times more."""
    ranks = 1 + np.searchsorted(-hits.scores, -hits.scores)
    return hits.among((ranks <= count) & (np.arange(len(hits)) < EQUAL_FACTOR * count))


def is_literal(hits: WordHits) -> Mask:
    """Which rows are literal matches, shape (len(hits),)."""
    found: Mask = (hits.shares >= LITERAL) | (_gaps(hits) >= LITERAL)
    return found


def fused_order(front: Rows, front_scores: Scores, hits: WordHits, hit_scores: Scores) -> tuple[Rows, Scores]:
    """All rows of both lists with their cosines, best first, equal ones in row order.

    ``front`` are rows in the order of their cosines ``front_scores``; ``hit_scores`` are the cosines of those of
    ``hits``. All have one dimension.
    """
    top, low = (float(front_scores[0]), float(front_scores[-1])) if len(front) else (0.0, 0.0)
    rows, places = np.unique(np.concatenate([front, hits.rows]), return_index=True)
    cosines: Scores = np.concatenate([front_scores, hit_scores])[places]
    fused = (cosines.astype(np.float64) - low) / (top - low or 1.0)
    fused[np.searchsorted(rows, hits.rows)] += np.maximum(_gaps(hits) ** 2, hits.shares**4)
    order = np.lexsort((rows, -fused))
    return rows[order].astype(np.int64), cosines[order]


def _gaps(hits: WordHits) -> Numbers:
    """By how much each row stands out from all others; above 0 for the best one alone, if for any."""
    if not len(hits):
        return np.empty(0)
    second = hits.scores[1] if len(hits) > 1 else 0.0
    gaps: Numbers = np.maximum(hits.scores - second, 0) / hits.scores[0]
    return gaps
