"""What an artifact's indexes lose and how long they take, judged by exact search; the model's quality is not in it.

The queries are those that the indexes meet: captions against image rows and images against caption rows, from
the whole collection. A time is the wall time of one search call for one query and ten rows, as the service makes it.
"""

import time
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.evaluation.embedded_dataset import Embedded
from clip_retrieval.indexes.choose import recall_at_k
from clip_retrieval.indexes.faiss_index import exact_search
from clip_retrieval.progress import Progress
from clip_retrieval.records import Modality

K = 10
MAX_QUERIES = 1000
WARM_UP = 20
SLOWEST = 5


class SlowQuery(BaseModel):
    """One query and the milliseconds that its search took."""

    model_config = ConfigDict(frozen=True)

    query: str
    ms: float


class IndexQuality(BaseModel):
    """One index against exact search."""

    model_config = ConfigDict(frozen=True)

    index: Modality
    kind: str
    rows: int
    queries: int
    query_kind: Literal["captions", "images"]
    recall_at_1: float
    """Share of the exact nearest rows that the index finds first."""
    recall_at_10: float
    """Share of the exact ten nearest rows that are among the ten which the index finds."""
    p50_ms: float
    p99_ms: float
    """Percentiles of single searches at one query a call."""
    slowest: tuple[SlowQuery, ...]


def index_quality(artifact: Artifact, data: Embedded, progress: Progress, *, seed: int = 0) -> tuple[IndexQuality, ...]:
    """Measure both indexes with up to a thousand queries each, drawn with ``seed``; none without captions."""
    if not data.captions:
        return ()
    return _measure(artifact, data, "images", progress, seed), _measure(artifact, data, "captions", progress, seed)


def _measure(artifact: Artifact, data: Embedded, target: Modality, progress: Progress, seed: int) -> IndexQuality:
    by_text = target == "images"
    vectors, queries = data.image_vectors, data.caption_vectors
    if not by_text:
        vectors, queries = queries, vectors
    picked = np.sort(np.random.default_rng(seed).permutation(len(queries))[:MAX_QUERIES])
    sample = np.ascontiguousarray(queries[picked])
    index = artifact.index(target)
    for query in sample[:WARM_UP]:
        index.search(query[None], K)
    seconds, found = [], []
    with progress.stage(f"searching the index of the {target}", len(sample)) as advance:
        for query in sample:
            start = time.perf_counter()
            _, rows = index.search(query[None], K)
            seconds.append(time.perf_counter() - start)
            found.append(rows[0])
            advance(1)
    with progress.stage("exact search, the judge", None):
        _, truth = exact_search(vectors, sample, K)
    ms = np.array(seconds) * 1e3
    names = [data.captions[row].text if by_text else data.images[row].image_path for row in picked.tolist()]
    p50, p99 = np.percentile(ms, [50, 99]).tolist()
    return IndexQuality(
        index=target,
        kind=index.spec.factory,
        rows=index.spec.rows,
        queries=len(sample),
        query_kind="captions" if by_text else "images",
        recall_at_1=recall_at_k(np.array(found)[:, :1], truth[:, :1]),
        recall_at_10=recall_at_k(np.array(found), truth),
        p50_ms=p50,
        p99_ms=p99,
        slowest=tuple(SlowQuery(query=names[row], ms=ms[row]) for row in np.argsort(-ms, kind="stable")[:SLOWEST]),
    )
