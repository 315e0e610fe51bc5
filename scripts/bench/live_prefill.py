"""A log that holds many changes before a service starts, and the recall of what it makes of the collection.

The changed images have CLIP-like vectors (``collection.py``) and one caption each; nothing is encoded.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.live.change import LiveCaption, LiveImage
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from clip_retrieval.search.collection import Collection
from scripts.bench import collection
from scripts.common.paths import sample_captions

TOGETHER = 256
"""Changes of one transaction."""
SEED, QUERY_SEED = 1, 2
QUERIES = 200


def fill_log(folder: Path, artifact: Artifact, added: int, removed: int) -> None:
    """Make the log in ``folder``: ``added`` images more, and ``removed`` of the artifact's less, spread over it.

    Raises ValueError if the artifact has not so many.
    """
    if removed > artifact.manifest.data.images:
        raise ValueError(f"removed is {removed}, and {artifact.path} has {artifact.manifest.data.images} images")
    encoder = artifact.manifest.encoder
    images, texts = collection.clip_like(max(1, added), 1, encoder.dim, SEED)
    captions = sample_captions()
    base = LiveCollection.of(Collection(artifact))
    log = ChangeLog.open(folder / LOG_FILE, fingerprint=encoder.fingerprint, dim=encoder.dim)
    try:
        thumbnail = base.thumbnail_of_row(0) if base.has_thumbnails else None
        gone = [base.images([row])[0][0].image_id for row in base.sample_rows(removed)]
        for start in range(0, added, TOGETHER):
            with log.transaction() as transaction:
                for number in range(start, min(start + TOGETHER, added)):
                    transaction.put(
                        LiveImage(
                            image_id=f"added-{number}",
                            image_path=f"added-{number}.jpg",
                            content_hash=f"{number + 2**64:064x}",
                            width=500,
                            height=375,
                            split="train",
                            metadata={},
                            captions=(LiveCaption(f"added-{number}#0", captions[number % len(captions)]),),
                            vector=images[number],
                            caption_vectors=texts[number : number + 1],
                            thumbnail=thumbnail,
                        )
                    )
        if gone:
            with log.transaction() as transaction:
                for image_id in gone:
                    transaction.remove(image_id)
    finally:
        log.close()
        base.close()


def recall_at_10(folder: Path, artifact: Artifact) -> float:
    """Mean share of the ten nearest images that a search of the live state finds, for captions of no image in it.

    The state is what a service has at rest: the base, the log's changes, the index of what was added.
    """
    encoder = artifact.manifest.encoder
    log = ChangeLog.open(folder / LOG_FILE, fingerprint=encoder.fingerprint, dim=encoder.dim)
    try:
        state = LiveCollection.of(Collection(artifact)).with_changes(log.after(0))
    finally:
        log.close()
    try:
        if state.needs_freeze:
            state = state.with_frozen(state.freeze())
        _, queries = collection.clip_like(QUERIES, 1, encoder.dim, QUERY_SEED)
        found = state.index("images").search(queries, 10, allowed=state.allowed("images", None)).rows
        rows = state.live_rows("images")
        return share_found(found, nearest(queries, state.index("images").vectors_of(rows), rows, 10))
    finally:
        state.close()


def nearest(queries: Vectors, vectors: Vectors, rows: NDArray[np.int64], k: int) -> list[set[int]]:
    """For each query the numbers (of ``rows``) of the ``k`` vectors with the largest inner products."""
    scores = queries @ vectors.T
    best = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
    return [set(rows[places].tolist()) for places in best]


def share_found(found: NDArray[np.int64], exact: list[set[int]]) -> float:
    """The mean over all queries of the share of the exact results that were found."""
    return float(np.mean([len(best & set(row.tolist())) / len(best) for row, best in zip(found, exact, strict=True)]))
