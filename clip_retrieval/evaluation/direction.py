"""One direction of retrieval on one gallery: metrics, their intervals, and the recall of a random order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.evaluation.recall import IntArray, Ranks, bootstrap, image_to_text, summarise, text_to_image
from clip_retrieval.evaluation.report import CUTOFFS, Direction, Miss
from clip_retrieval.records import Way


@dataclass(frozen=True)
class Pool:
    """What is ranked: images (m, dim) and captions (n, dim), float32 unit vectors."""

    images: Vectors
    captions: Vectors
    image_of: IntArray
    """Shape (n,): the place of each caption's image among the images."""

    def queries(self, way: Way) -> int:
        """How many queries there are: every caption, or every image that has captions."""
        return len(self.captions) if way == "text_to_image" else len(np.unique(self.image_of))

    def candidates(self, way: Way) -> int:
        """How many images, or captions, each query searches."""
        return len(self.images) if way == "text_to_image" else len(self.captions)

    def ranks(self, way: Way, advance: Callable[[int], object]) -> Ranks:
        """The rank of every query. Raises ValueError for vectors that contain NaN or infinity."""
        rank = text_to_image if way == "text_to_image" else image_to_text
        return rank(self.captions, self.images, self.image_of, advance)

    def with_captions(self, rows: IntArray) -> "Pool":
        """The same images with these captions alone."""
        return Pool(self.images, self.captions[rows], self.image_of[rows])


def measured(
    pool: Pool, way: Way, ranks: Ranks, *, resamples: int, seed: int, worst: tuple[Miss, ...] = ()
) -> Direction:
    """What the ``ranks`` of all queries of one direction add up to."""
    queries, candidates = pool.queries(way), pool.candidates(way)
    by_text = way == "text_to_image"
    relevant = np.ones(queries, np.int64) if by_text else np.bincount(pool.image_of)[ranks.images]
    return Direction(
        queries=queries,
        candidates=candidates,
        metrics=summarise(ranks),
        intervals=bootstrap(ranks, resamples=resamples, seed=seed),
        chance={f"recall_at_{k}": chance(candidates, relevant, k) for k in CUTOFFS},
        curve=tuple((k, float((ranks.values <= k).mean())) for k in _cutoffs(candidates)),
        worst=worst,
    )


def chance(candidates: int, relevant: IntArray, k: int) -> float:
    """Mean recall@k of a random order, by the hypergeometric distribution.

    ``relevant``, of shape (queries,), is the number of relevant items of each query among ``candidates`` items.
    """
    missed = np.ones(len(relevant))
    for drawn in range(min(k, candidates)):
        missed *= np.maximum(candidates - relevant - drawn, 0) / (candidates - drawn)
    return float(1 - missed.mean())


def _cutoffs(candidates: int) -> list[int]:
    """The cutoffs 1, 2, 3, 5, 7, 10, 15, 20, 30 … up to the size of the gallery."""
    steps = (10, 15, 20, 30, 50, 70)
    series = [1, 2, 3, 5, 7, *(step * 10**power for power in range(7) for step in steps)]
    return [*(k for k in series if k < candidates), candidates]
