"""A collection's captions and images as pairs, right and wrong ones, which the share of right answers is fitted to."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.regression import Numbers
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.records import Way

MOST_QUERIES = 5_000
"""Captions or images that are looked at."""
WRONG_FOR_EACH = 8
"""Wrong pairs for each of these."""
_SEED = 0


class Pairs(NamedTuple):
    """Cosines of pairs, float64 of shape (n,), each with its weight: a query's own count together as its wrong ones."""

    cosines: Numbers
    is_right: NDArray[np.bool_]
    weights: Numbers
    queries: NDArray[np.int64]
    """Shape (n,): the image of the query of each pair, so that what is fitted can be tried on other queries."""

    def take(self, which: NDArray[np.bool_]) -> "Pairs":
        """These pairs alone."""
        return Pairs(self.cosines[which], self.is_right[which], self.weights[which], self.queries[which])


def pairs_of(way: Way, images: Vectors, captions: Vectors, image_of: NDArray[np.int32]) -> Pairs:
    """Right and wrong pairs of images (m, dim) and captions (n, dim), unit vectors; ``image_of`` (n,) has image rows.

    The draw is the same for the same collection.
    """
    rng = np.random.default_rng(_SEED)
    picked = np.arange(len(captions))
    if way == "image_to_text":
        owners = np.unique(image_of)
        owners = np.sort(rng.permutation(owners)[:MOST_QUERIES])
        picked = np.flatnonzero(np.isin(image_of, owners))
    else:
        picked = np.sort(rng.permutation(picked)[:MOST_QUERIES])
    own = image_of[picked]
    counts = np.bincount(own, minlength=len(images))[own] if way == "image_to_text" else np.ones(len(own))
    if way == "text_to_image":
        others = rng.integers(len(images), size=(len(picked), WRONG_FOR_EACH))
        wrong = np.stack([_cosines(captions[picked], images[column]) for column in others.T], axis=1)
        is_wrong = others != own[:, None]
    else:
        others = rng.integers(len(captions), size=(len(picked), WRONG_FOR_EACH))
        wrong = np.stack([_cosines(images[own], captions[column]) for column in others.T], axis=1)
        is_wrong = image_of[others] != own[:, None]
    share = 1 / counts
    weights = np.where(is_wrong, (share / np.maximum(is_wrong.sum(axis=1), 1))[:, None], 0)
    kept = is_wrong.ravel()
    return Pairs(
        np.concatenate([_cosines(captions[picked], images[own]), wrong.ravel()[kept]]),
        np.concatenate([np.ones(len(own), np.bool_), np.zeros(int(kept.sum()), np.bool_)]),
        np.concatenate([share, weights.ravel()[kept]]),
        np.concatenate([own, np.repeat(own, WRONG_FOR_EACH)[kept]]).astype(np.int64),
    )


def best_of_each(pairs: Pairs) -> Numbers:
    """The highest cosine among the right pairs of each query."""
    queries, places = np.unique(pairs.queries[pairs.is_right], return_inverse=True)
    best = np.full(len(queries), -np.inf)
    np.maximum.at(best, places, pairs.cosines[pairs.is_right])
    return best


def _cosines(first: Vectors, second: Vectors) -> Numbers:
    """The cosine of each row of the one with the same row of the other: shape (n,)."""
    return np.asarray(np.einsum("nd,nd->n", first, second), np.float64)
