"""Whether a confidence keeps what it says: the share that it gives, and the share of right answers that is found.

Each half of the queries is judged by the curve that was fitted to the other half (``artifacts/confidence.py``), so no
pair is judged by a curve that it took part in. Pairs are put into bins by the share that was said, as reliability
diagrams are drawn (Niculescu-Mizil and Caruana, 2005, "Predicting good probabilities with supervised learning").
"""

import numpy as np

from clip_retrieval.artifacts.confidence import Curve, Pairs, fit, pairs_of
from clip_retrieval.contract.base import DEFAULT_MIN_CONFIDENCE
from clip_retrieval.evaluation.direction import Pool
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.report import CUTOFFS, Bin, Reliability
from clip_retrieval.records import WAYS, Way

EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def reliability(data: EmbeddedDataset) -> tuple[Reliability, ...]:
    """How good the confidence of each way is; none for a way without one. All splits count together."""
    image_of = np.array([caption.image_row for caption in data.captions], np.int32)
    if len(data.images) < 2 or not data.captions:
        return ()
    captions = data.caption_vectors[[caption.row for caption in data.captions]]
    found = []
    for way in WAYS:
        pairs = pairs_of(way, data.image_vectors, captions, image_of)
        if (curve := fit(pairs)) is not None and (bins := _bins(pairs)):
            found.append(_reliability(Pool(data.image_vectors, captions, image_of.astype(np.int64)), way, curve, bins))
    return tuple(found)


def _reliability(pool: Pool, way: Way, curve: Curve, bins: tuple[Bin, ...]) -> Reliability:
    least = curve.cosine(DEFAULT_MIN_CONFIDENCE)
    own = np.einsum("nd,nd->n", pool.captions, pool.images[pool.image_of])
    ranks = pool.ranks(way, int)
    if way == "image_to_text":
        best = np.full(len(pool.images), -np.inf)
        np.maximum.at(best, pool.image_of, own)
        own = best[ranks.images]
    weights = np.array([one.weight for one in bins])
    gaps = np.array([abs(one.said - one.found) for one in bins])
    return Reliability(
        way=way,
        slope=curve.slope,
        intercept=curve.intercept,
        queries=curve.queries,
        bins=bins,
        mean_gap=float((weights * gaps).sum() / weights.sum()),
        min_confidence=DEFAULT_MIN_CONFIDENCE,
        least_cosine=least,
        lost={f"recall_at_{k}": float(((ranks.values <= k) & (own < least)).mean()) for k in CUTOFFS},
    )


def _bins(pairs: Pairs) -> tuple[Bin, ...]:
    """The bins from low to high; none if a half has too few pairs."""
    is_even = pairs.queries % 2 == 0
    said = np.empty(len(pairs.cosines))
    for half in (is_even, ~is_even):
        curve = fit(Pairs(*(part[half] for part in pairs)))
        if curve is None:
            return ()
        said[~half] = [curve.share(cosine) for cosine in pairs.cosines[~half].tolist()]
    places = np.digitize(said, EDGES)
    return tuple(
        Bin(
            said=float(np.average(said[inside], weights=pairs.weights[inside])),
            found=float(np.average(pairs.is_right[inside], weights=pairs.weights[inside])),
            pairs=int(inside.sum()),
            weight=float(pairs.weights[inside].sum()),
        )
        for place in range(len(EDGES) + 1)
        if (inside := places == place).any()
    )
