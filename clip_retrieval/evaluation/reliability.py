"""Whether a confidence keeps what it says: the share that it gives, and the share of right answers that is found.

Each half of the queries is judged by the curve that was fitted to the other half (``artifacts/confidence.py``), so no
pair is judged by a curve that it took part in. Pairs are put into bins by the share that was said, as reliability
diagrams are drawn (Niculescu-Mizil and Caruana, 2005, "Predicting good probabilities with supervised learning"). Where
the nearest caption counts too, the pairs are those of ``artifacts/trials.py``: half of the wrong ones are what a text
finds best whose image is not there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.confidence import (
    Curve,
    curves_of,
    fit,
    fit_captions,
)
from clip_retrieval.artifacts.pairs import Pairs, pairs_of
from clip_retrieval.artifacts.regression import Numbers
from clip_retrieval.artifacts.trials import Trials, trials_of
from clip_retrieval.evaluation.direction import Pool
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.report import CUTOFFS, Bin, Reliability
from clip_retrieval.records import WAYS, Way

EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class _Said(NamedTuple):
    """Pairs with the share that the curve of the other half says: all of shape (n,)."""

    shares: Numbers
    is_right: NDArray[np.bool_]
    weights: Numbers


def reliability(data: EmbeddedDataset) -> tuple[Reliability, ...]:
    """How good the confidence of each way is; none for a way without one. All splits count together."""
    image_of = np.array([caption.image_row for caption in data.captions], np.int32)
    if len(data.images) < 2 or not data.captions:
        return ()
    captions = data.caption_vectors[[caption.row for caption in data.captions]]
    curves = curves_of(data.image_vectors, captions, image_of)
    pool = Pool(data.image_vectors, captions, image_of.astype(np.int64))
    found = []
    for way in WAYS:
        if (curve := curves.way(way)) is None:
            continue
        pairs = pairs_of(way, data.image_vectors, captions, image_of)
        if curve.with_caption is not None:
            trials = trials_of(data.image_vectors, captions, image_of)
            assert trials is not None, "they were fitted"
            measured = _tried(trials, pairs, curve, curves.bound)
        else:
            measured = _drawn(pairs, pool, way, curve, curves.bound)
        if measured is not None:
            found.append(measured)
    return tuple(found)


def _tried(trials: Trials, drawn: Pairs, curve: Curve, bound: float) -> Reliability | None:
    """Text → image, by the image and the nearest caption. None if a half has too few trials, or too few pairs."""
    pairs, own = trials.pairs(), np.stack([trials.own, trials.caption], axis=1)
    is_even, shares, own_shares = trials.images % 2 == 0, np.empty(len(pairs.cosines)), np.empty(len(own))
    for half in (is_even, ~is_even):
        of_half = np.isin(drawn.queries, trials.images[half])
        fitted = fit(drawn.take(of_half))
        term = fit_captions(trials.take(half))
        if fitted is None or term is None:
            return None
        judge = fitted.model_copy(update={"with_caption": term})
        there = np.isin(pairs.images, trials.images[~half])
        shares[there] = _shares(judge, pairs.cosines[there])
        own_shares[~half] = _shares(judge, own[~half])
    usual = curve.given(float(np.median(trials.caption)))
    said = _Said(shares, pairs.is_right, pairs.weights)
    return _reliability(
        said, "text_to_image", curve, bound, usual.cosine(bound), _lost(trials.ranks, own_shares, bound)
    )


def _drawn(pairs: Pairs, pool: Pool, way: Way, curve: Curve, bound: float) -> Reliability | None:
    """Either way, by the score alone. None if a half has too few pairs."""
    is_even, shares = pairs.queries % 2 == 0, np.empty(len(pairs.cosines))
    for half in (is_even, ~is_even):
        fitted = fit(pairs.take(half))
        if fitted is None:
            return None
        shares[~half] = [fitted.share(cosine) for cosine in pairs.cosines[~half].tolist()]
    own = np.einsum("nd,nd->n", pool.captions, pool.images[pool.image_of])
    ranks = pool.ranks(way, int)
    if way == "image_to_text":
        best = np.full(len(pool.images), -np.inf)
        np.maximum.at(best, pool.image_of, own)
        own = best[ranks.images]
    own_shares = np.array([curve.share(cosine) for cosine in own.tolist()])
    said = _Said(shares, pairs.is_right, pairs.weights)
    return _reliability(said, way, curve, bound, curve.cosine(bound), _lost(ranks.values, own_shares, bound))


def _shares(curve: Curve, cosines: Numbers) -> Numbers:
    """The share at each pair of cosines (n, 2), to the image and to the nearest caption."""
    return np.array([curve.given(caption).share(cosine) for cosine, caption in cosines.tolist()])


def _lost(ranks: NDArray[np.int64], shares: Numbers, bound: float) -> dict[str, float]:
    return {f"recall_at_{k}": float(((ranks <= k) & (shares < bound)).mean()) for k in CUTOFFS}


def _reliability(
    said: _Said, way: Way, curve: Curve, bound: float, least: float, lost: dict[str, float]
) -> Reliability:
    bins, used = _bins(said), curve.with_caption or curve
    weights = np.array([one.weight for one in bins])
    gaps = np.array([abs(one.said - one.found) for one in bins])
    return Reliability(
        way=way,
        slope=used.slope,
        intercept=used.intercept,
        caption_slope=None if curve.with_caption is None else curve.with_caption.caption_slope,
        queries=curve.queries,
        bins=bins,
        mean_gap=float((weights * gaps).sum() / weights.sum()),
        min_confidence=bound,
        least_cosine=least,
        lost=lost,
    )


def _bins(said: _Said) -> tuple[Bin, ...]:
    """The bins from low to high."""
    places = np.digitize(said.shares, EDGES)
    return tuple(
        Bin(
            said=float(np.average(said.shares[inside], weights=said.weights[inside])),
            found=float(np.average(said.is_right[inside], weights=said.weights[inside])),
            pairs=int(inside.sum()),
            weight=float(said.weights[inside].sum()),
        )
        for place in range(len(EDGES) + 1)
        if (inside := places == place).any()
    )
