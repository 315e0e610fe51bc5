"""The page of a query: cut from the order by vectors, by words, or by both."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clip_retrieval.artifacts.word_search import NO_HITS, WordHits, find
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.search.columns import Mask
from clip_retrieval.search.fusion import FusedOrder, WordOrder
from clip_retrieval.search.hits import Finder
from clip_retrieval.search.query import Query
from clip_retrieval.search.ranking import FOLD_BLOCK_ROWS, Order, RankedPage, Ranking, cut_page
from clip_retrieval.search.searchable import SearchableCollection


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page, what found each of its rows, and how many more it would have without the least cosine."""

    page: RankedPage
    found_by: list[Finder]
    below: int


def find_page(
    query: Query,
    vector: Vectors,
    collection: SearchableCollection,
    without: list[int],
    least: float | None,
    *,
    knows: Callable[[str], bool],
    front_only: bool,
) -> FoundPage:
    """The page that ``query`` asks for, with its vector, a unit vector of shape (dim,).

    ``knows`` says of a word whether the encoder does (``Encoder.knows``).
    ``without`` are rows that are left out, and so are those of a cosine below ``least``, unless words found them: see
    ``fusion.py``. Raises BeyondFront if ``front_only`` and the page needs rows behind the front; InvalidQuery.
    """
    index, allowed = collection.searched(query.target, query.where)
    hits = _worded(query, collection, allowed, without, knows)

    def cut(order: Order, min_score: float | None = None) -> RankedPage:
        content = collection.content_numbers(query.target) if query.dedupe else None
        return cut_page(order, query.k, query.offset, min_score=min_score, dedupe=query.dedupe, content=content)

    if query.mode == "words":
        by_words = WordOrder(index, vector, hits)
        page = cut(by_words)
        return FoundPage(page, by_words.found_by(page.rows), 0)
    ranking = Ranking(
        index,
        vector,
        front=FOLD_BLOCK_ROWS if query.dedupe else None,
        allowed=allowed,
        without=without,
        front_only=front_only,
    )
    if query.mode == "vector":
        page = cut(ranking, query.min_score)
        kept = len(page.rows) if least is None else sum(score >= least for score in page.scores)  # best first
        return FoundPage(page.first(kept), ["vector"] * kept, len(page.rows) - kept)
    fused = FusedOrder(ranking, vector, hits, query.min_score)
    page, below = cut(fused), 0
    if least is not None:
        whole, fused = page, FusedOrder(ranking, vector, hits, max(least, query.min_score or -1.0))
        page = cut(fused)
        below = len(whole.rows) - len(page.rows)
    return FoundPage(page, fused.found_by(page.rows), below)


def _worded(
    query: Query,
    collection: SearchableCollection,
    allowed: Mask | None,
    without: list[int],
    knows: Callable[[str], bool],
) -> WordHits:
    """What the words of a query find; nothing without a ``mode`` that asks for words."""
    if query.mode == "vector" or collection.words is None:
        return NO_HITS
    wanted, alone = query.words, query.mode == "words"
    names = () if alone else {word for word in wanted if not knows(word)}
    hits = find(collection.words, query.target, wanted, allowed, names=names, frequent_alone=alone)
    return hits.among(~np.isin(hits.rows, without)) if without else hits
