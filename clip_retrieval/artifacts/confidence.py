"""What a cosine between a text and an image means in one collection: the share of right answers at that cosine.

The collection's own captions are the judges. Each caption with its image is a right pair; with images drawn from the
others it makes wrong pairs. As many of the ones as of the others would make the share at a cosine

    share(cosine) = 1 / (1 + exp(-(slope * cosine + intercept)))

which is fitted by logistic regression. Text → image and image → text are fitted each by itself: every caption, or every
image that has captions, counts the same. The share does not depend on how large the collection is. A wrong pair may fit
as well as a right one (two photographs of one tower), which makes the share a low estimate.

An image may be near to a text that it has nothing to do with. Such a text is most often far from every caption, so for
text → image there is a second curve, over two cosines: that to the image, and that of the text to the nearest caption
of the collection (``trials.py``). It is for one text alone.

    share = 1 / (1 + exp(-(slope * cosine + caption_slope * caption + intercept)))

It tells searches apart: a text that is near to a caption lifts all images alike, those that have nothing to do with
it too. The first curve tells images apart. A result has the lower of the two shares.

``min_confidence`` is what the collection chose itself as the bound of what is near enough: the highest that costs its
own held-out captions, and its own images, no more than ``MOST_LOST`` of recall@10.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from clip_retrieval.artifacts.pairs import Pairs, best_of_each, pairs_of
from clip_retrieval.artifacts.regression import Numbers, logistic, regress
from clip_retrieval.artifacts.trials import Trials, trials_of
from clip_retrieval.contract.base import DEFAULT_MIN_CONFIDENCE
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.records import WAYS, Way

CONFIDENCE = "confidence.json"
FORM_OF_CURVES = 2
"""A part of the version of what is built, since equal versions have equal answers. The first knew scores alone."""
LEAST_PAIRS = 20
"""Fewer images with captions say nothing about others."""
LOST_AT = 10
MOST_LOST = 0.02
"""Of recall@10, by the bound that a collection chooses."""
HIGHEST_BOUND = 0.5
"""What is more likely right than wrong is near enough, however well a collection tells the two apart."""
TOO_ALIKE = 0.9
"""Where half of the captions have one of another image that is as near, as captions by a template have, they do not say
how near to one a text is that somebody types."""


class CaptionTerm(BaseModel):
    """The curve over two cosines: to the image, and to the nearest caption of the collection."""

    model_config = ConfigDict(frozen=True)

    slope: float
    caption_slope: float
    """Both above 0."""
    intercept: float
    low: float
    high: float
    """The cosines to captions that it was fitted to; one beyond is taken for the nearer of the two."""

    def at(self, caption: float) -> tuple[float, float]:
        """The slope and the intercept of the curve over the cosine to the image, for this cosine to a caption."""
        return self.slope, self.intercept + self.caption_slope * min(max(caption, self.low), self.high)


class Curve(BaseModel):
    """The share of right answers by cosine, one way."""

    model_config = ConfigDict(frozen=True)

    slope: float
    """Above 0."""
    intercept: float
    queries: int
    """The captions or images that it was fitted to."""
    with_caption: CaptionTerm | None = None
    """The curve that also takes the nearest caption; None where captions tell nothing, and of an earlier release."""

    def given(self, caption: float) -> "Curve | Lower":
        """The curve of a text whose cosine to the nearest caption is ``caption``."""
        if self.with_caption is None:
            return self
        slope, intercept = self.with_caption.at(caption)
        return Lower(self, Curve(slope=slope, intercept=intercept, queries=self.queries))

    def share(self, cosine: float) -> float:
        """From 0 to 1; see above."""
        return logistic(self.slope * cosine + self.intercept)

    def cosine(self, share: float) -> float:
        """The cosine of a share above 0 and below 1."""
        return (math.log(share / (1 - share)) - self.intercept) / self.slope


class Lower(NamedTuple):
    """The lower of two curves."""

    first: Curve
    second: Curve

    def share(self, cosine: float) -> float:
        """From 0 to 1."""
        return min(self.first.share(cosine), self.second.share(cosine))

    def cosine(self, share: float) -> float:
        """The least cosine with a share above 0 and below 1."""
        return max(self.first.cosine(share), self.second.cosine(share))


class Curves(BaseModel):
    """The curves of a collection; None for too few captions, or where right pairs are no nearer than others."""

    model_config = ConfigDict(frozen=True)

    text_to_image: Curve | None
    image_to_text: Curve | None
    min_confidence: float | None = None
    """The bound that the collection chose, from 0 to below 1; None of an earlier release."""

    @property
    def form(self) -> int:
        """Which release fitted them; see ``FORM_OF_CURVES``."""
        return 1 if self.min_confidence is None else FORM_OF_CURVES

    @property
    def bound(self) -> float:
        """The bound that the collection chose, or the usual one."""
        return DEFAULT_MIN_CONFIDENCE if self.min_confidence is None else self.min_confidence

    def way(self, way: Way) -> Curve | None:
        """The curve of one way."""
        return self.text_to_image if way == "text_to_image" else self.image_to_text

    def with_those_of(self, other: "Curves") -> "Curves":
        """These curves, and those of ``other`` for a way that has none here; its bound, if all are its own."""
        none_here = self.text_to_image is None and self.image_to_text is None
        return Curves(
            text_to_image=self.text_to_image or other.text_to_image,
            image_to_text=self.image_to_text or other.image_to_text,
            min_confidence=other.min_confidence if none_here else self.min_confidence,
        )


NO_CURVES = Curves(text_to_image=None, image_to_text=None)


def fit(pairs: Pairs) -> Curve | None:
    """The curve of these pairs; None if they are too few, or if a higher cosine is not a better sign."""
    images = len(np.unique(pairs.queries[pairs.is_right]))
    if images < LEAST_PAIRS or pairs.is_right.all():
        return None
    found = regress(pairs.cosines[:, None], pairs.is_right, pairs.weights)
    if found is None or found[0] <= 0:
        return None
    queries = round(float(pairs.weights[pairs.is_right].sum()))  # those of one query add up to 1
    return Curve(slope=found[0], intercept=found[1], queries=queries)


def fit_captions(trials: Trials) -> CaptionTerm | None:
    """The curve over two cosines; None if there are too few trials, or the nearest caption tells nothing."""
    if len(np.unique(trials.images)) < LEAST_PAIRS or np.median(trials.caption) >= TOO_ALIKE:
        return None
    pairs = trials.pairs()
    found = regress(pairs.cosines, pairs.is_right, pairs.weights)
    if found is None or min(found[:2]) <= 0:
        return None
    low, high = pairs.cosines[:, 1].min(), pairs.cosines[:, 1].max()
    slope, caption_slope, intercept = found
    return CaptionTerm(slope=slope, caption_slope=caption_slope, intercept=intercept, low=float(low), high=float(high))


def chosen_bound(shares: Numbers, ranks: NDArray[np.int64]) -> float:
    """The highest bound that costs no more than ``MOST_LOST`` of recall@10, to three digits.

    ``shares`` and ``ranks``, of shape (queries,), are of what is right for each query.
    """
    found = np.sort(shares[ranks <= LOST_AT])
    lost = math.floor(MOST_LOST * len(shares))
    highest = float(found[lost]) if lost < len(found) else HIGHEST_BOUND
    return max(1, math.floor(1000 * min(highest, HIGHEST_BOUND))) / 1000


def curves_of(images: Vectors, captions: Vectors, image_of: NDArray[np.int32]) -> Curves:
    """Both curves of a collection; arguments as in ``pairs_of``."""
    if len(images) < 2 or not len(captions):
        return NO_CURVES
    pairs = {way: pairs_of(way, images, captions, image_of) for way in WAYS}
    text, image = fit(pairs["text_to_image"]), fit(pairs["image_to_text"])
    bounds = []
    if text is not None and (trials := trials_of(images, captions, image_of)) is not None:
        text = text.model_copy(update={"with_caption": fit_captions(trials)})
        bounds.append(chosen_bound(shares_of(text, trials), trials.ranks))
    if image is not None:
        shares = np.array([image.share(cosine) for cosine in best_of_each(pairs["image_to_text"]).tolist()])
        bounds.append(chosen_bound(shares, np.ones(len(shares), np.int64)))
    return Curves(text_to_image=text, image_to_text=image, min_confidence=min(bounds, default=None))


def shares_of(curve: Curve, trials: Trials) -> Numbers:
    """The share at the own image of each trial, shape (n,)."""
    each = zip(trials.own.tolist(), trials.caption.tolist(), strict=True)
    return np.array([curve.given(caption).share(own) for own, caption in each])


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
