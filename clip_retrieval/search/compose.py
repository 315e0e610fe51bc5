"""One query vector from several: the weighted sum of unit vectors, scaled back to unit length.

    q = Σ wᵢ vᵢ / ‖Σ wᵢ vᵢ‖

This is Rocchio's rule for relevance feedback: add the vectors of wanted things, subtract those of unwanted things
(Rocchio, 1971, "Relevance feedback in information retrieval", in Salton (ed.), The SMART Retrieval System). Couairon et
al., 2022 (arXiv:2112.03162) use the same arithmetic in CLIP's space. Vectors of texts and of images are added as they
are, although CLIP keeps the two modalities apart (the modality gap: Liang et al., 2022, arXiv:2203.02053);
``docs/queries.md`` describes the effect. This file does not depend on encoders or indexes.
"""

from collections.abc import Sequence

import numpy as np

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import InvalidQuery

MIN_LENGTH_SHARE = 0.01
"""The shortest accepted sum, as a share of the sum of the weights' magnitudes. A shorter sum is mostly the rounding of
the encoder, and its direction means nothing."""


def compose(vectors: Vectors, weights: Sequence[float]) -> Vectors:
    """The unit vector, float32 (dim,), of the weighted sum of unit ``vectors`` (n, dim), n of at least 1.

    Weights are finite and not zero; a negative weight subtracts; only the ratios of the weights matter. A single vector
    is returned unchanged, or negated if its weight is negative. The sum is in double precision. Raises InvalidQuery
    when the parts cancel each other out.
    """
    if len(vectors) == 1:
        single: Vectors = vectors[0] if weights[0] > 0 else -vectors[0]
        return single
    scaled = np.asarray(weights, dtype=np.float64)
    scaled = scaled / np.abs(scaled).max()
    total = scaled @ np.asarray(vectors, dtype=np.float64)
    length = float(np.linalg.norm(total))
    if length < MIN_LENGTH_SHARE * np.abs(scaled).sum():
        raise InvalidQuery("the parts of the query cancel each other out; change a weight or leave a part out")
    composed: Vectors = (total / length).astype(np.float32)
    return composed
