"""Where the images stand that people opened, among all images, by exact search with the very queries that they gave.

What was opened was shown before, most often far in front: this judges a change of model or of captions on one's own
traffic, and flatters whatever was served. It is no recall of a labelled collection.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from clip_retrieval.contract.base import Frozen
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.evaluation.report import CUTOFFS
from clip_retrieval.query_log.entry import LoggedClick, LoggedSearch

BLOCK_ROWS = 256
"""Searches that are compared with all images together."""


class Clicked(Frozen):
    """The ranks of what was opened; of several images of one search the best counts."""

    searches: int
    """Searches with an image that was opened and is still there."""
    recall: dict[str, float]
    """The share of them with such an image among the first k, by cutoff: ``recall_at_10``."""
    mean_reciprocal_rank: float


def clicked(
    data: EmbeddedDataset,
    searches: Sequence[LoggedSearch],
    vectors: Vectors,
    clicks: Mapping[str, Sequence[LoggedClick]],
) -> Clicked | None:
    """Judge searches for images, with unit vectors (n, dim), by the clicks on each; None if none of them has any."""
    rows = {image.image_id: image.row for image in data.images}
    by_hash = {image.content_hash: image.row for image in data.images}
    opened = []
    for number, search in enumerate(searches):
        named = [
            rows.get(click.image_id) if click.image_id else by_hash.get(click.content_hash or "")
            for click in clicks.get(search.search_id, ())
        ]
        if there := [row for row in named if row is not None]:
            opened.append((number, there))
    if not opened:
        return None
    ranks: list[int] = []
    for start in range(0, len(opened), BLOCK_ROWS):
        block = opened[start : start + BLOCK_ROWS]
        scores = vectors[[number for number, _ in block]] @ data.image_vectors.T
        ranks += [
            int((row_scores > max(row_scores[there])).sum()) + 1
            for row_scores, (_, there) in zip(scores, block, strict=True)
        ]
    found = np.array(ranks)
    return Clicked(
        searches=len(found),
        recall={f"recall_at_{k}": float((found <= k).mean()) for k in CUTOFFS},
        mean_reciprocal_rank=float((1 / found).mean()),
    )
