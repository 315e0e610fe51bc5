"""A collection's captions as if they were what somebody searches for: with their image in it, and without.

Each caption is held out: it, and what else is said of its own image, is no caption of the collection for it. Its own
image is what is right. What a search finds whose image is *absent* is tried with the same captions: the image is taken
away, and with it the ``RELATED`` part of the collection whose captions are the nearest, which may be right too. What is
then the best is wrong.

How near a query is to the nearest caption of the collection tells the two apart better than the image alone does, as
the distance to the nearest neighbours tells what a classifier never saw (Sun et al., 2022, "Out-of-distribution
detection with deep nearest neighbors", arXiv:2204.06507).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.regression import Numbers
from clip_retrieval.encoders.base import Vectors

MOST_TRIALS = 2_000
LEAST_TRIALS = 200
MOST_COMPARED = 2**29
"""Pairs of a trial and a caption or an image that are compared, in all."""
GALLERY = 2_048
"""Images, drawn at random, among which the best is looked for that is wrong."""
WRONG_FOR_EACH = 8
"""Images that are drawn for each trial and are wrong."""
RELATED = 0.1
"""The part of the captions, the nearest, that goes with an image which is taken away. From 0.05 to 0.2 it makes little
difference (docs/performance-log.md)."""
ABSENT_SHARE = 0.75
"""How much of the wrong pairs' weight those have whose image is absent; a part of it must tell images of one search
from each other."""
_BLOCK_VALUES = 2**22
_SEED = 1


class Trials(NamedTuple):
    """Cosines of n held-out captions, float64; the arrays have the shape (n,) where nothing else is said."""

    images: NDArray[np.int64]
    """The row of the image of each."""
    own: Numbers
    """To its own image."""
    ranks: NDArray[np.int64]
    """The rank of that image among all, from 1."""
    caption: Numbers
    """To the nearest caption of another image."""
    wrong: Numbers
    """To images that were drawn, shape (n, ``WRONG_FOR_EACH``); NaN where its own was."""
    absent_image: Numbers
    """To the nearest image that is left where its own is absent."""
    absent_caption: Numbers
    """To the nearest caption that is left then."""

    def take(self, which: NDArray[np.bool_]) -> "Trials":
        """These trials alone."""
        return Trials(
            self.images[which],
            self.own[which],
            self.ranks[which],
            self.caption[which],
            self.wrong[which],
            self.absent_image[which],
            self.absent_caption[which],
        )

    def pairs(self) -> "TriedPairs":
        """The trials as right and wrong pairs; the wrong ones count as much together as the right ones.

        Some of the wrong ones are drawn, ``ABSENT_SHARE`` are the best where nothing is right.
        """
        drawn = np.isfinite(self.wrong)
        rows = np.nonzero(drawn)[0]
        shares = (1 - ABSENT_SHARE) / np.maximum(drawn.sum(axis=1), 1)
        count = len(self.own)
        return TriedPairs(
            np.concatenate(
                [
                    np.stack([self.own, self.caption], axis=1),
                    np.stack([self.wrong[drawn], self.caption[rows]], axis=1),
                    np.stack([self.absent_image, self.absent_caption], axis=1),
                ]
            ),
            np.repeat([True, False], [count, len(rows) + count]),
            np.concatenate([np.ones(count), shares[rows], np.full(count, ABSENT_SHARE)]),
            np.concatenate([self.images, self.images[rows], self.images]),
        )


class TriedPairs(NamedTuple):
    """Pairs of a trial and an image: the two cosines (n, 2), whether they are right, their weights, and the images."""

    cosines: Numbers
    is_right: NDArray[np.bool_]
    weights: Numbers
    images: NDArray[np.int64]


def trials_of(images: Vectors, captions: Vectors, image_of: NDArray[np.int32]) -> Trials | None:
    """Trials with images (m, dim) and captions (n, dim), unit vectors; ``image_of`` (n,) has image rows.

    The draw is the same for the same collection. None where fewer than two images have captions.
    """
    if len(np.unique(image_of)) < 2:
        return None
    rng = np.random.default_rng(_SEED)
    count = max(LEAST_TRIALS, min(MOST_TRIALS, MOST_COMPARED // (len(captions) + len(images))))
    picked = np.sort(rng.permutation(len(captions))[:count])
    queries, own_rows = np.asarray(captions[picked]), image_of[picked].astype(np.int64)
    own = np.einsum("nd,nd->n", queries, images[own_rows])
    others = rng.integers(len(images), size=(len(picked), WRONG_FOR_EACH))
    wrong = np.stack([np.einsum("nd,nd->n", queries, images[column]) for column in others.T], axis=1)
    gallery = np.sort(rng.permutation(len(images))[:GALLERY])
    trials = Trials(
        own_rows,
        own.astype(np.float64),
        _ranks(queries, own, images),
        _nearest(queries, own_rows, captions, image_of),
        np.where(others == own_rows[:, None], np.nan, wrong).astype(np.float64),
        *_absent(queries, own_rows, images, captions, image_of, gallery),
    )
    return trials.take(
        np.isfinite(trials.caption) & np.isfinite(trials.absent_image) & np.isfinite(trials.absent_caption)
    )


def _ranks(queries: Vectors, own: Vectors, images: Vectors) -> NDArray[np.int64]:
    """The rank of the own image of each query: how many images are nearer, and one."""
    ranks = np.ones(len(queries), np.int64)
    step = max(1, _BLOCK_VALUES // len(queries))
    for start in range(0, len(images), step):
        ranks += (queries @ images[start : start + step].T > own[:, None] + 1e-6).sum(axis=1)
    return ranks


def _nearest(queries: Vectors, own_rows: NDArray[np.int64], captions: Vectors, image_of: NDArray[np.int32]) -> Numbers:
    """The cosine of each query to the nearest caption of another image; one pass over the captions."""
    nearest = np.full(len(queries), -np.inf)
    step = max(1, _BLOCK_VALUES // len(queries))
    for start in range(0, len(captions), step):
        cosines = queries @ captions[start : start + step].T
        cosines[image_of[start : start + step] == own_rows[:, None]] = -np.inf
        np.maximum(nearest, cosines.max(axis=1), out=nearest)
    return nearest


def _absent(
    queries: Vectors,
    own_rows: NDArray[np.int64],
    images: Vectors,
    captions: Vectors,
    image_of: NDArray[np.int32],
    gallery: NDArray[np.int64],
) -> tuple[Numbers, Numbers]:
    """The cosine to the nearest image and to the nearest caption of the gallery that is left; -inf if none is."""
    shown = np.flatnonzero(np.isin(image_of, gallery))
    places = np.searchsorted(gallery, image_of[shown])
    there, said = images[gallery], captions[shown]
    taken = min(len(shown) - 1, max(1, round(RELATED * len(shown))))
    best_image, best_caption = np.full(len(queries), -np.inf), np.full(len(queries), -np.inf)
    step = max(1, _BLOCK_VALUES // max(len(shown), len(gallery)))
    for start in range(0, len(queries) if taken > 0 else 0, step):
        block = slice(start, start + step)
        to_captions, to_images = queries[block] @ said.T, queries[block] @ there.T
        least = np.partition(to_captions, -taken, axis=1)[:, -taken]
        related = (to_captions >= least[:, None]) | (image_of[shown] == own_rows[block, None])
        rows, columns = np.nonzero(related)
        to_captions[related] = -np.inf
        to_images[rows, places[columns]] = -np.inf
        to_images[gallery == own_rows[block, None]] = -np.inf
        best_image[block], best_caption[block] = to_images.max(axis=1), to_captions.max(axis=1)
    return best_image, best_caption
