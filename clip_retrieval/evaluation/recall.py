"""The quality of a ranking: the rank of the first relevant item of each query, and metrics of these ranks.

The protocol is the usual one (Karpathy and Fei-Fei, 2015, arXiv:1412.2306, section 4.2; LAION's clip-benchmark,
``zeroshot_retrieval``):

- text → image: every caption is a query, and its only relevant item is its image.
- image → text: every image that has captions is a query. Its captions are relevant, and the best of them counts.
- An equal caption of another image, or an equal image with another name, is not relevant. It is a miss if it comes
  first, as in published numbers.

Ranks count from 1. Equal scores are in row order, so a model that gives everything the same score has the recall of a
random order. This file needs only numpy; it does not depend on models, files or splits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clip_retrieval.encoders.base import Vectors

IntArray = NDArray[np.int64]

MAX_BLOCK_SCORES = 4_000_000
"""The largest number of scores in memory at the same time: 16 MB as float32."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One rank for each query. Both arrays are int64, of shape (queries,)."""

    values: IntArray
    """The rank of the first relevant item, from 1."""
    images: IntArray
    """The row of the query's image: the query itself, or the image of the query's caption."""


class Metrics(BaseModel):
    """The metrics of one direction. Recalls are from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    recall_at_1: float
    """The share of the queries whose first relevant item is at rank 1."""
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    mean_rank: float


class Interval(BaseModel):
    """The two ends of a confidence interval."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float


def text_to_image(
    captions: Vectors, images: Vectors, image_of: IntArray, advance: Callable[[int], object] = int
) -> Ranks:
    """For every caption, the rank of its own image among ``images``.

    ``captions`` (n, dim) and ``images`` (m, dim) are float32 unit vectors; ``image_of`` (n,) gives each caption's row
    in ``images``. ``advance`` gets the number of queries just ranked. Memory stays within a few times
    ``MAX_BLOCK_SCORES`` for any n and m. Raises ValueError for vectors that contain NaN or infinity: comparisons with
    NaN are false, so every query would be at rank 1.
    """
    found = [np.empty(0, np.int64)]
    for rows, scores in _scored(captions, images):
        found.append(_rank_of(scores, image_of[rows]))
        advance(len(scores))
    return Ranks(np.concatenate(found), np.asarray(image_of, np.int64))


def image_to_text(
    captions: Vectors, images: Vectors, image_of: IntArray, advance: Callable[[int], object] = int
) -> Ranks:
    """For every image with captions, the rank of the best of its captions; arguments as in ``text_to_image``."""
    queries = np.unique(image_of).astype(np.int64)
    found = [np.empty(0, np.int64)]
    for rows, scores in _scored(images[queries], captions):
        own = image_of[None, :] == queries[rows][:, None]
        best = np.where(own, scores, -np.inf).argmax(axis=1)  # the first of equal scores, since ties are in row order
        found.append(_rank_of(scores, best))
        advance(len(scores))
    return Ranks(np.concatenate(found), queries)


def summarise(ranks: Ranks) -> Metrics:
    """Recall at 1, 5 and 10, median and mean rank. Raises ValueError if there are no ranks."""
    return _metrics(ranks.values, np.ones(len(ranks.values), np.int64))


def bootstrap(ranks: Ranks, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
    """Percentile intervals of each field of ``Metrics`` (Efron and Tibshirani, 1993, section 13.3).

    Images are resampled together with all of their queries. Captions of one image are not independent, so resampling
    single captions would give intervals that are too narrow (the cluster bootstrap; Davison and Hinkley, 1997, section
    3.8). The gallery is not resampled: the intervals say how the metrics vary with the queries. Raises ValueError if
    there are no ranks.
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
    """The metrics of ranks; each rank counts ``weights`` times."""
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    total = np.cumsum(weights)
    if not len(values):
        raise ValueError("there are no ranks to summarise")
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
    """Blocks of queries: the rows of each block, and its scores with all ``items``."""
    distinct, same = _distinct(items)
    step = max(1, MAX_BLOCK_SCORES // max(1, len(items)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = queries[rows] @ distinct.T
        if len(distinct) < len(items):
            scores = scores[:, same]
        if not np.isfinite(scores).all():
            raise ValueError("the vectors contain NaN or infinity")
        yield rows, scores


def _distinct(items: Vectors) -> tuple[Vectors, IntArray]:
    """The distinct rows of ``items``, and for each row its place among them.

    A matrix product may round equal columns differently. Scored once, equal items have exactly equal scores.
    """
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault(row.tobytes(), len(first)) for row in items], np.int64)
    _, rows = np.unique(same, return_index=True)
    return items[rows], same


def _rank_of(scores: NDArray[np.float32], relevant: IntArray) -> IntArray:
    """The rank of one item for each query: 1 plus the items that score higher, or equal in an earlier row."""
    own = np.take_along_axis(scores, relevant[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < relevant[:, None]
    rank: IntArray = 1 + ((scores > own) | ((scores == own) & earlier)).sum(axis=1, dtype=np.int64)
    return rank
