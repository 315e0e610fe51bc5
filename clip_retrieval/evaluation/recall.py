"""How good a ranking is: the rank of the first relevant item of each query, and what is made of ranks.

The protocol is the field's own (Karpathy and Fei-Fei, 2015, arXiv:1412.2306, section 4.2; LAION's clip-benchmark,
``zeroshot_retrieval``):

- text → image: every caption is a query of its own, and the one relevant item is its image.
- image → text: every image that has captions is a query, its captions are relevant, and the best of them counts.
- What stands beside it does not matter: an equal caption of another image, or an equal image under another
  name, is not relevant. It is a miss if it comes first, as it is in published numbers.

Ranks count from 1. Ties are broken by the stable row order, so a model that gives everything the same score is at
chance and not at the top. Knows nothing of models, files or splits: numpy alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clip_retrieval.encoders.base import Vectors

IntArray = NDArray[np.int64]

MAX_BLOCK_SCORES = 4_000_000
"""Scores that are held at once; 16 MB as float32."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One rank a query. Both int64, of shape (queries,)."""

    values: IntArray
    """The rank of the first relevant item, from 1."""
    images: IntArray
    """The row of the image that the query is, or is a caption of."""


class Metrics(BaseModel):
    """What the ranks of one direction come to. Shares are from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    recall_at_1: float
    """Share of the queries whose first relevant item is at rank 1."""
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    mean_rank: float


class Interval(BaseModel):
    """Two ends of a confidence interval."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float


def text_to_image(
    captions: Vectors, images: Vectors, image_of: IntArray, advance: Callable[[int], object] = int
) -> Ranks:
    """The rank of its own image among ``images`` for every caption.

    ``captions`` (n, dim) and ``images`` (m, dim) are float32 unit vectors; ``image_of`` (n,) gives each caption's row
    in ``images``. ``advance`` is told how many queries were just ranked. Memory stays within a few times
    ``MAX_BLOCK_SCORES`` whatever n and m are. Raises ValueError for vectors with values that are not finite: comparing
    those would put every query at rank 1.
    """
    found = [np.empty(0, np.int64)]
    for rows, scores in _scored(captions, images):
        found.append(_rank_of(scores, image_of[rows]))
        advance(len(scores))
    return Ranks(np.concatenate(found), np.asarray(image_of, np.int64))


def image_to_text(
    captions: Vectors, images: Vectors, image_of: IntArray, advance: Callable[[int], object] = int
) -> Ranks:
    """The rank of the best of its own captions for every image that has any; arguments as in ``text_to_image``."""
    queries = np.unique(image_of).astype(np.int64)
    found = [np.empty(0, np.int64)]
    for rows, scores in _scored(images[queries], captions):
        own = image_of[None, :] == queries[rows][:, None]
        best = np.where(own, scores, -np.inf).argmax(axis=1)  # of equal ones the first, as ties are broken
        found.append(_rank_of(scores, best))
        advance(len(scores))
    return Ranks(np.concatenate(found), queries)


def summarise(ranks: Ranks) -> Metrics:
    """Recall at 1, 5 and 10, median and mean rank. Raises ValueError without any rank."""
    return _metrics(ranks.values, np.ones(len(ranks.values), np.int64))


def bootstrap(ranks: Ranks, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
    """Percentile intervals of each field of ``Metrics`` (Efron and Tibshirani, 1993, section 13.3).

    Images are resampled and bring all of their queries: captions of one image are not independent, and resampling
    them one by one would give intervals that are too narrow (the cluster bootstrap; Davison and Hinkley, 1997, section
    3.8). The gallery stays as it is, so the intervals tell how the figures vary with the queries. Raises
    ValueError without any rank.
    """
    order = np.argsort(ranks.values, kind="stable")
    values = ranks.values[order]
    images, owner = np.unique(ranks.images[order], return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        picked = np.bincount(rng.integers(len(images), size=len(images)), minlength=len(images))
        drawn.append(list(_metrics(values, picked[owner]).model_dump().values()))
    tails = np.quantile(np.array(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: Interval(low=low, high=high) for name, low, high in zip(Metrics.model_fields, *tails, strict=True)}


def _metrics(values: IntArray, weights: IntArray) -> Metrics:
    """The metrics of ranks that each count ``weights`` times."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    total = np.cumsum(weights)
    if not len(values):
        raise ValueError("there is no rank to summarise")
    count = int(total[-1])
    at_1, at_5, at_10 = (float(weights[values <= k].sum() / count) for k in (1, 5, 10))
    middle = values[np.searchsorted(total, [(count - 1) // 2, count // 2], side="right")]
    return Metrics(
        recall_at_1=at_1,
        recall_at_5=at_5,
        recall_at_10=at_10,
        median_rank=float(middle.mean()),
        mean_rank=float((values * weights).sum() / count),
    )


def _scored(queries: Vectors, items: Vectors) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of queries: their rows and their scores with all of ``items``."""
    distinct, same = _distinct(items)
    step = max(1, MAX_BLOCK_SCORES // max(1, len(items)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = queries[rows] @ distinct.T
        if len(distinct) < len(items):
            scores = scores[:, same]
        if not np.isfinite(scores).all():
            raise ValueError("the vectors hold values that are not finite")
        yield rows, scores


def _distinct(items: Vectors) -> tuple[Vectors, IntArray]:
    """The different rows of ``items``, and which of them each row is.

    A matrix product may round equal columns differently; scored once, equal items tie exactly.
    """
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault(row.tobytes(), len(first)) for row in items], np.int64)
    _, rows = np.unique(same, return_index=True)
    return items[rows], same


def _rank_of(scores: NDArray[np.float32], relevant: IntArray) -> IntArray:
    """The rank of one item for each query: how many score higher, or the same in an earlier row, and itself."""
    own = np.take_along_axis(scores, relevant[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < relevant[:, None]
    rank: IntArray = 1 + ((scores > own) | ((scores == own) & earlier)).sum(axis=1, dtype=np.int64)
    return rank
