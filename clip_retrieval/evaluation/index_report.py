"""The recall and the search times of an artifact's indexes, compared with exact search.

The report says nothing about the quality of the model. The queries are like those of the service: captions against the
image index and images against the caption index, from the whole collection. A time is the wall time of one search for
one query and ten rows.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.indexes.faiss_index import exact_search
from clip_retrieval.indexes.measure import MAX_QUERIES, TRUTH_DEPTH, Meter
from clip_retrieval.progress import Progress
from clip_retrieval.records import Modality

SLOWEST_QUERIES = 5


class SlowQuery(BaseModel):
    """One query and the time of its search in milliseconds."""

    model_config = ConfigDict(frozen=True)

    query: str
    ms: float


class IndexQuality(BaseModel):
    """One index, compared with exact search."""

    model_config = ConfigDict(frozen=True)

    index: Modality
    kind: str
    rows: int
    queries: int
    query_kind: Modality
    recall_at_1: float
    """The share of queries whose exact nearest row is the first result of the index."""
    recall_at_10: float
    """The mean share of the exact 10 nearest rows that are among the first 10 results."""
    recall_at_50: float
    """The same for 50."""
    p50_ms: float
    p99_ms: float
    """Percentiles of the times of single searches."""
    slowest: tuple[SlowQuery, ...]


def index_quality(
    artifact: Artifact, data: EmbeddedDataset, progress: Progress, *, seed: int = 0
) -> tuple[IndexQuality, ...]:
    """Measure both indexes with up to 1,000 queries each, drawn with ``seed``; empty if there are no captions."""
    if not data.captions:
        return ()
    return _quality_of(artifact, data, "images", progress, seed), _quality_of(
        artifact, data, "captions", progress, seed
    )


def _quality_of(
    artifact: Artifact, data: EmbeddedDataset, target: Modality, progress: Progress, seed: int
) -> IndexQuality:
    kind: Modality = "captions" if target == "images" else "images"
    vectors = {"images": data.image_vectors, "captions": data.caption_vectors}
    picked = np.sort(np.random.default_rng(seed).permutation(len(vectors[kind]))[:MAX_QUERIES])
    sample = np.ascontiguousarray(vectors[kind][picked])
    index = artifact.index(target)
    meter = Meter(timed_queries=len(sample), rounds=1)
    with progress.stage(f"searching the index of the {target}", len(sample)) as advance:
        times = meter.times(index, sample, advance=advance)
    with progress.stage("exact search", None):
        truth = exact_search(vectors[target], sample, TRUTH_DEPTH).rows
        seen = meter.measure(index, sample, truth, kind, times=times)
    ms = times.ms[0]
    names = [data.captions[row].text if kind == "captions" else data.images[row].image_path for row in picked.tolist()]
    return IndexQuality(
        index=target,
        kind=index.spec.factory,
        rows=index.spec.rows,
        queries=seen.queries,
        query_kind=kind,
        recall_at_1=seen.recalls[1],
        recall_at_10=seen.recalls[10],
        recall_at_50=seen.recalls[50],
        p50_ms=times.p50_ms,
        p99_ms=times.p99_ms,
        slowest=tuple(
            SlowQuery(query=names[row], ms=ms[row]) for row in np.argsort(-ms, kind="stable")[:SLOWEST_QUERIES]
        ),
    )
