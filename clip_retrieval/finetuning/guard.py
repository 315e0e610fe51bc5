"""Whether a fine-tuned model is better than the one it started from; if not, the start is what is returned.

The rule. The result is returned only if

1. on validation its mean recall is higher than the start's (with ``certain``: the whole 95 % interval of the gain is
   above 0), and
2. on another domain its mean recall is not lower than the start's by more than the tolerance.

Mean recall is the mean of recall@1, 5 and 10 of both directions. A gain is the result's less the start's on the same
queries, so its interval is that of paired differences: a percentile bootstrap (Efron 1979) over pictures, since the
captions of a picture are no independent queries. Validation has also chosen the epoch and the interpolation, so its
gain is optimistic, more so the smaller it is; the test side, which chooses nothing, is the one to quote.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors

TOLERANCE = 0.02
KS = (1, 5, 10)
_RESAMPLES = 2000
_AT_ONCE = 256

Ranks = NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """Ranks from 1 of a set of pictures and their captions under one model."""

    texts: Ranks
    """For each caption, the rank of its picture."""
    images: Ranks
    """For each picture, the best rank of its captions."""
    image_of: Ranks
    """The picture of each caption."""

    def recalls(self) -> dict[str, dict[str, float]]:
        """Recall by direction and K."""
        return {
            name: {f"recall@{k}": float((ranks <= k).mean()) for k in KS}
            for name, ranks in (("text_to_image", self.texts), ("image_to_text", self.images))
        }

    def mean_recall(self) -> float:
        return float(np.mean([value for both in self.recalls().values() for value in both.values()]))


@dataclass(frozen=True)
class Gain:
    """The mean recall of both models on the same queries, and the difference with its 95 % interval."""

    pictures: int
    start: float
    result: float
    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:+.3f} to {self.high:+.3f}"
        return f"{self.start:.3f} → {self.result:.3f} ({self.difference:+.3f}, {interval}, {self.pictures} pictures)"


@dataclass(frozen=True)
class Verdict:
    """What is returned, and why."""

    better: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rank(images: Vectors, texts: Vectors, image_of: Ranks) -> Ranked:
    """Ranks by exact search of unit vectors (pictures, dim) and (captions, dim); equal scores stand in row order.

    A picture's rank is the best of its own captions (Karpathy & Fei-Fei 2015, arXiv:1412.2306). Vectors that are not
    finite count as zeros, so a model that has come apart is no better than the row order.
    """
    images, texts = np.nan_to_num(images, posinf=0, neginf=0), np.nan_to_num(texts, posinf=0, neginf=0)
    by_text, by_image = np.empty(len(texts), np.int64), np.empty(len(images), np.int64)
    for start in range(0, len(texts), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        by_text[rows] = _ranks(texts[rows] @ images.T, image_of[rows])
    for start in range(0, len(images), _AT_ONCE):
        scores = images[start : start + _AT_ONCE] @ texts.T
        own = image_of[None, :] == np.arange(start, start + len(scores))[:, None]
        by_image[start : start + _AT_ONCE] = _ranks(scores, np.where(own, scores, -np.inf).argmax(axis=1))
    return Ranked(by_text, by_image, image_of)


def gain(start: Ranked, result: Ranked, seed: int = 0) -> Gain:
    """The gain of ``result`` over ``start``, whose rows must be the same queries."""
    count = len(start.images)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    captions = np.bincount(start.image_of, minlength=count)
    # A picture's part in the sums over its captions and over itself, of the difference of hits.
    by_text = np.zeros(count)
    np.add.at(by_text, start.image_of, _hits(result.texts) - _hits(start.texts))
    by_image = _hits(result.images) - _hits(start.images)
    resampled = (weights @ by_text / np.maximum(1, weights @ captions) + weights @ by_image / count) / 2
    low, high = np.percentile(resampled, [2.5, 97.5])
    before, after = start.mean_recall(), result.mean_recall()
    return Gain(count, before, after, after - before, float(low), float(high))


def judge(validation: Gain, other: Gain | None, *, tolerance: float = TOLERANCE, certain: bool = False) -> Verdict:
    """The rule above. Without ``other`` only validation decides, and the reason says so."""
    if validation.difference <= 0:
        return Verdict(False, f"the mean recall on validation is not higher: {validation}")
    if certain and validation.low <= 0:
        return Verdict(False, f"the gain on validation is not certain: {validation}")
    if other is not None and other.difference < -tolerance:
        return Verdict(False, f"it costs more than {tolerance:g} on the other domain: {other}")
    elsewhere = "no other domain was looked at" if other is None else f"on the other domain {other}"
    return Verdict(True, f"the mean recall on validation is higher: {validation}; {elsewhere}")


def _ranks(scores: Vectors, right: Ranks) -> Ranks:
    """The rank of column ``right[i]`` in row i."""
    own = np.take_along_axis(scores, right[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < right[:, None]
    ranks: Ranks = 1 + (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return ranks


def _hits(ranks: Ranks) -> NDArray[np.float64]:
    """For each query, the share of the Ks that it is found within."""
    hits: NDArray[np.float64] = np.mean([ranks <= k for k in KS], axis=0)
    return hits
