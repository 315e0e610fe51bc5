"""The decision whether a fine-tuned model is better than the start. If it is not, the run returns the start.

The result is returned only if both conditions hold:

1. On validation its mean recall is higher than the start's. With ``certain`` the whole 95 % interval of the gain must
   be above 0.
2. On another domain its mean recall is not lower than the start's by more than the tolerance.

Mean recall is the mean of recall@1, 5 and 10 in both directions. A gain is the difference of result and start on the
same queries. Its interval is therefore that of paired differences: a percentile bootstrap (Efron 1979) over images,
since the captions of an image are not independent queries. Validation also chose the epoch and the interpolation, so
its gain is optimistic, above all where validation is small. Quote the gain on the test side, which chose nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.evaluation import recall as metrics
from clip_retrieval.evaluation.recall import IntArray, Ranks

TOLERANCE = 0.02
_RESAMPLES = 2000
_LEAST_GAIN = 1e-9  # smaller differences are rounding


@dataclass(frozen=True)
class Ranked:
    """The ranks of one model on a set of captioned images, in both directions."""

    texts: Ranks
    """The rank of the image of each caption."""
    images: Ranks
    """The rank of the best own caption of each image."""

    def recalls(self) -> dict[str, dict[str, float]]:
        """Recall by direction and K."""
        ways = {"text_to_image": metrics.summarise(self.texts), "image_to_text": metrics.summarise(self.images)}
        return {
            way: {"recall@1": found.recall_at_1, "recall@5": found.recall_at_5, "recall@10": found.recall_at_10}
            for way, found in ways.items()
        }

    def mean_recall(self) -> float:
        """The mean of recall@1, 5 and 10 in both directions, 0 to 1."""
        return float(np.mean([value for way in self.recalls().values() for value in way.values()]))


@dataclass(frozen=True)
class Gain:
    """The mean recall of both models on the same queries, and their difference with its 95 % interval."""

    images: int
    start: float
    result: float
    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:+.3f} to {self.high:+.3f}"
        return f"{self.start:.3f} → {self.result:.3f} ({self.difference:+.3f}, {interval}, {self.images} images)"


@dataclass(frozen=True)
class Verdict:
    """Whether the result is returned, and the reason."""

    better: bool
    reason: str


def rank(images: Vectors, texts: Vectors, image_of: IntArray) -> Ranked:
    """Exact ranks of unit vectors (images, dim) and (captions, dim); ``image_of`` is the image row of each caption.

    Components that are not finite count as zeros, so a model that has diverged is no better than the row order.
    """
    images, texts = (np.nan_to_num(vectors, posinf=0, neginf=0) for vectors in (images, texts))
    return Ranked(metrics.text_to_image(texts, images, image_of), metrics.image_to_text(texts, images, image_of))


def gain(start: Ranked, result: Ranked, seed: int = 0) -> Gain:
    """The gain of ``result`` over ``start``. Both rank the same queries, and every image has a caption."""
    count = len(start.images.values)
    picked = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    captions = np.bincount(start.texts.images, minlength=count)
    changed = _hits(result.texts) - _hits(start.texts)
    by_text = np.bincount(start.texts.images, weights=changed, minlength=count)
    by_image = _hits(result.images) - _hits(start.images)
    differences = (picked @ by_text / (picked @ captions) + picked @ by_image / count) / 2
    low, high = np.percentile(differences, [2.5, 97.5])
    before, after = start.mean_recall(), result.mean_recall()
    return Gain(count, before, after, after - before, float(low), float(high))


def judge(validation: Gain, other: Gain | None, *, tolerance: float = TOLERANCE, certain: bool = False) -> Verdict:
    """The verdict by the conditions above. Without ``other`` only validation decides, and the reason says so."""
    if validation.difference < _LEAST_GAIN:
        return Verdict(False, f"the mean recall on validation is not higher: {validation}")
    if certain and validation.low <= 0:
        return Verdict(False, f"the gain on validation is not certain: {validation}")
    if other is not None and other.difference < -tolerance:
        return Verdict(False, f"it costs more than {tolerance:g} on the other domain: {other}")
    elsewhere = "no other domain was looked at" if other is None else f"on the other domain {other}"
    return Verdict(True, f"the mean recall on validation is higher: {validation}; {elsewhere}")


def _hits(ranks: Ranks) -> NDArray[np.float64]:
    """For each query, the mean of its hits at 1, 5 and 10: 1, 2/3, 1/3 or 0."""
    return np.asarray(np.mean([ranks.values <= k for k in (1, 5, 10)], axis=0), np.float64)
