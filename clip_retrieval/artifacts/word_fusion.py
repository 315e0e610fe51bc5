"""One order of what vectors found and what words found.

    fused(row) = max(0, (cosine(row) - low) / (top - low)) + literal(row)
    literal    = 1 if the row has all words of the query, else (the share of the query's names that it has)⁴

``top`` and ``low`` are the best and the last cosine of the front by vectors, so that the first part does not depend on
the scale of a model's cosines; how far behind the front a literal match is costs it nothing. It is a convex combination
as in Bruch, Gai and Ingber, 2023, "An Analysis of Fusion Functions for Hybrid Retrieval" (ACM TOIS 42,
arXiv:2210.11934), with words weighted by how literal a match is.

Names are numbers and the words that the model does not know: its tokenizer splits them, so they were rare in what it
was trained on (``Encoder.knows``). Other words of a query say what an image shows, which vectors know better; they
count where an image has all of them. Shares are weighted by rarity (idf). The fourth power matters where a tokenizer
splits ordinary words too: a row that has one of many then hardly counts. Reciprocal rank fusion (Cormack, Clarke and
Büttcher, 2009), which trusts both lists alike, lost more there than it won by names (``docs/evaluation.md``).
"""

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.word_search import Mask, Numbers, Rows, WordHits

LITERAL = 0.5
"""A row with this share of the names is a literal match, and so is one with all words."""
EQUAL_FACTOR = 10
"""So many times more rows than ranks are fused where many rows have one rank."""

Scores = NDArray[np.float32]


def matches(hits: WordHits, count: int) -> WordHits:
    """Those that count in the fused order: with a name or all words, of the first ``count`` ranks of such rows.

    All that are equal to the last one are among them, but not ten times more.
    """
    hits = hits.among(_literal(hits) > 0)
    ranks = 1 + np.searchsorted(-hits.scores, -hits.scores)
    return hits.among((ranks <= count) & (np.arange(len(hits)) < EQUAL_FACTOR * count))


def is_literal(hits: WordHits) -> Mask:
    """Which rows are literal matches, shape (len(hits),)."""
    found: Mask = (hits.names >= LITERAL) | (hits.shares == 1)
    return found


def fused_order(front: Rows, front_scores: Scores, found: WordHits, found_scores: Scores) -> tuple[Rows, Scores]:
    """All rows of both lists with their cosines, best first, equal ones by their cosines, then in row order.

    ``front`` are rows in the order of their cosines ``front_scores``; ``found_scores`` are the cosines of those of
    ``found``. All have one dimension.
    """
    top, low = (float(front_scores[0]), float(front_scores[-1])) if len(front) else (0.0, 0.0)
    rows, places = np.unique(np.concatenate([front, found.rows]), return_index=True)
    cosines: Scores = np.concatenate([front_scores, found_scores])[places]
    fused = np.maximum((cosines.astype(np.float64) - low) / (top - low or 1.0), 0)
    fused[np.searchsorted(rows, found.rows)] += _literal(found)
    order = np.lexsort((rows, -cosines, -fused))
    return rows[order].astype(np.int64), cosines[order]


def _literal(hits: WordHits) -> Numbers:
    """How literal a match each row is, shape (len(hits),), from 0 to 1."""
    return np.where(hits.shares == 1, 1.0, hits.names**4)
