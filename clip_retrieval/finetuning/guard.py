"""Whether a fine-tuned model is better than the one it started from; if not, the start is what is returned.

The rule. The result is returned only if

1. on validation its mean recall is higher than the start's (with ``certain``: the whole 95 % interval of the gain is
   above 0), and
2. on another domain its mean recall is not lower than the start's by more than the tolerance.

Mean recall is the mean of recall@1, 5 and 10 of both directions. A gain is the result's less the start's on the same
queries, so its interval is that of paired differences: a percentile bootstrap (Efron 1979) over images, since the
captions of an image are no independent queries. Validation has also chosen the epoch and the interpolation, so its
gain is optimistic, more so the smaller it is; the test side, which chooses nothing, is the one to quote.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.evaluation import recall as metrics
from clip_retrieval.evaluation.recall import Ranks, Rows

TOLERANCE = 0.02
_RESAMPLES = 2000
_LEAST_GAIN = 1e-9  # less is rounding


@dataclass(frozen=True)
class Ranked:
    """How one model ranks a set of captioned images, both ways."""

    texts: Ranks
    """Of the image of each caption."""
    images: Ranks
    """Of the best own caption of each image."""

    def recalls(self) -> dict[str, dict[str, float]]:
        """Recall by direction and K."""
        ways = {"text_to_image": metrics.summarise(self.texts), "image_to_text": metrics.summarise(self.images)}
        return {
            way: {"recall@1": found.recall_at_1, "recall@5": found.recall_at_5, "recall@10": found.recall_at_10}
            for way, found in ways.items()
        }

    def mean_recall(self) -> float:
        return float(np.mean([value for way in self.recalls().values() for value in way.values()]))


@dataclass(frozen=True)
class Gain:
    """The mean recall of both models on the same queries, and the difference with its 95 % interval."""

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
    """What is returned, and why."""

    better: bool
    reason: str


def rank(images: Vectors, texts: Vectors, image_of: Rows) -> Ranked:
    """Exact ranks, by ``metrics.py``, of unit vectors (images, dim) and (captions, dim).

    Vectors that are not finite count as zeros, so a model that has come apart is no better than the row order.
    """
    images, texts = (np.nan_to_num(vectors, posinf=0, neginf=0) for vectors in (images, texts))
    return Ranked(metrics.text_to_image(texts, images, image_of), metrics.image_to_text(texts, images, image_of))


def gain(start: Ranked, result: Ranked, seed: int = 0) -> Gain:
    """The gain of ``result`` over ``start``, whose rows must be the same queries; every image has a caption."""
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
    """The rule above. Without ``other`` only validation decides, and the reason says so."""
    if validation.difference < _LEAST_GAIN:
        return Verdict(False, f"the mean recall on validation is not higher: {validation}")
    if certain and validation.low <= 0:
        return Verdict(False, f"the gain on validation is not certain: {validation}")
    if other is not None and other.difference < -tolerance:
        return Verdict(False, f"it costs more than {tolerance:g} on the other domain: {other}")
    elsewhere = "no other domain was looked at" if other is None else f"on the other domain {other}"
    return Verdict(True, f"the mean recall on validation is higher: {validation}; {elsewhere}")


def _hits(ranks: Ranks) -> NDArray[np.float64]:
    """For each query, the share of 1, 5 and 10 that are not less than its rank."""
    return np.asarray(np.mean([ranks.values <= k for k in (1, 5, 10)], axis=0), np.float64)
