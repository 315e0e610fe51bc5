"""What a cosine between a text and an image means in one collection: the share of right answers at that cosine.

The collection's own captions are the judges. Each caption with its image is a right pair; with images drawn from the
others it makes wrong pairs. As many of the ones as of the others would make the share at a cosine

    share(cosine) = 1 / (1 + exp(-(slope * cosine + intercept)))

which is fitted by logistic regression, with the smoothed targets of Platt (1999, "Probabilistic outputs for support
vector machines") so that pairs without overlap have a finite slope. Text → image and image → text are fitted each by
itself: every caption, or every image that has captions, counts the same. The share does not depend on how large the
collection is. A wrong pair may fit as well as a right one (two photographs of one tower), which makes the share a low
estimate.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.records import WAYS, Way

CONFIDENCE = "confidence.json"
LEAST_PAIRS = 20
"""Fewer images with captions say nothing about others."""
MOST_QUERIES = 5_000
"""Captions or images that are looked at."""
WRONG_FOR_EACH = 8
"""Wrong pairs for each of these."""
_STEPS = 100
_SEED = 0

Numbers: TypeAlias = NDArray[np.float64]


class Curve(BaseModel):
    """The share of right answers by cosine, one way."""

    model_config = ConfigDict(frozen=True)

    slope: float
    """Above 0."""
    intercept: float
    queries: int
    """The captions or images that it was fitted to."""

    def share(self, cosine: float) -> float:
        """From 0 to 1; see above."""
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, self.slope * cosine + self.intercept))))

    def cosine(self, share: float) -> float:
        """The cosine of a share above 0 and below 1."""
        return (math.log(share / (1 - share)) - self.intercept) / self.slope


class Curves(BaseModel):
    """The curves of a collection; None for too few captions, or where right pairs are no nearer than others."""

    model_config = ConfigDict(frozen=True)

    text_to_image: Curve | None
    image_to_text: Curve | None

    def way(self, way: Way) -> Curve | None:
        """The curve of one way."""
        return self.text_to_image if way == "text_to_image" else self.image_to_text

    def with_those_of(self, other: "Curves") -> "Curves":
        """These curves, and those of ``other`` for a way that has none here."""
        return Curves(
            text_to_image=self.text_to_image or other.text_to_image,
            image_to_text=self.image_to_text or other.image_to_text,
        )


NO_CURVES = Curves(text_to_image=None, image_to_text=None)


class Pairs(NamedTuple):
    """Cosines of pairs, float64 of shape (n,), each with its weight: a query's own count together as its wrong ones."""

    cosines: Numbers
    is_right: NDArray[np.bool_]
    weights: Numbers
    queries: NDArray[np.int64]
    """Shape (n,): the image of the query of each pair, so that what is fitted can be tried on other queries."""


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


def fit(pairs: Pairs) -> Curve | None:
    """The curve of these pairs; None if they are too few, or if a higher cosine is not a better sign."""
    images = len(np.unique(pairs.queries[pairs.is_right]))
    right, wrong = int(pairs.is_right.sum()), int((~pairs.is_right).sum())
    if images < LEAST_PAIRS or not wrong:
        return None
    targets = np.where(pairs.is_right, (right + 1) / (right + 2), 1 / (right + 2))
    inputs = np.stack([pairs.cosines, np.ones_like(pairs.cosines)], axis=1)
    found = np.zeros(2)
    for _ in range(_STEPS):  # Newton's method; the loss is convex
        shares = 1 / (1 + np.exp(-np.clip(inputs @ found, -700, 700)))
        gradient = inputs.T @ (pairs.weights * (targets - shares))
        curvature = (inputs * (pairs.weights * shares * (1 - shares))[:, None]).T @ inputs
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        found += step * min(1.0, 10 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    slope, intercept = found.tolist()
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope > 0):
        return None
    queries = round(float(pairs.weights[pairs.is_right].sum()))  # those of one query add up to 1
    return Curve(slope=slope, intercept=intercept, queries=queries)


def curves_of(images: Vectors, captions: Vectors, image_of: NDArray[np.int32]) -> Curves:
    """Both curves of a collection; arguments as in ``pairs_of``."""
    if len(images) < 2 or not len(captions):
        return NO_CURVES
    return Curves(**{way: fit(pairs_of(way, images, captions, image_of)) for way in WAYS})


def confident_ways(curves: Curves | None) -> list[Way]:
    """The ways that have a curve."""
    return [way for way in WAYS if curves is not None and curves.way(way) is not None]


def write_curves(folder: Path, curves: Curves) -> None:
    """Write the curves into the folder of an artifact."""
    (folder / CONFIDENCE).write_text(curves.model_dump_json(indent=1), encoding="utf-8")


def read_curves(folder: Path) -> Curves:
    """The curves of an artifact that has them. Raises ArtifactDamaged when the file cannot be read."""
    try:
        return Curves.model_validate(json.loads((folder / CONFIDENCE).read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactDamaged(f"{folder / CONFIDENCE} cannot be read ({error}); build the artifact again") from error


def _cosines(first: Vectors, second: Vectors) -> Numbers:
    """The cosine of each row of the one with the same row of the other: shape (n,)."""
    return np.asarray(np.einsum("nd,nd->n", first, second), np.float64)
