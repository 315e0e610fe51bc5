"""The recall and the search times of an artifact's indexes, compared with exact search.

The report says nothing about the quality of the model. The queries are like those of the service: captions against the
image index and images against the caption index, from the whole collection, or what the service was really asked. A
time is the wall time of one search for one query and ten rows.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset
from clip_retrieval.indexes.faiss_index import exact_search
from clip_retrieval.indexes.measure import MAX_QUERIES, TRUTH_DEPTH, Meter
from clip_retrieval.progress import Progress
from clip_retrieval.records import MODALITIES, Modality

SLOWEST_QUERIES = 5


class Queries(NamedTuple):
    """Queries of an index: unit vectors (n, dim), what they are like, and what each is for people."""

    vectors: Vectors
    kind: Modality
    names: Sequence[str]


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
    """What they were, or, if they are from a query log, what most of them are like."""
    logged: bool = False
    """Whether they are from a query log."""
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
    artifact: Artifact,
    data: EmbeddedDataset,
    progress: Progress,
    *,
    seed: int = 0,
    asked: Mapping[Modality, Queries] | None = None,
) -> tuple[IndexQuality, ...]:
    """Measure both indexes with up to 1,000 queries each, drawn with ``seed``; empty if there are no captions.

    ``asked`` has other queries than the collection's own, by what they look for.
    """
    if not data.captions:
        return ()
    return tuple(
        _quality_of(artifact, data, target, progress, seed, (asked or {}).get(target)) for target in MODALITIES
    )


def _own(data: EmbeddedDataset, target: Modality) -> Queries:
    """The vectors of the other modality."""
    if target == "images":
        return Queries(data.caption_vectors, "captions", [caption.text for caption in data.captions])
    return Queries(data.image_vectors, "images", [image.image_path for image in data.images])


def _quality_of(
    artifact: Artifact, data: EmbeddedDataset, target: Modality, progress: Progress, seed: int, asked: Queries | None
) -> IndexQuality:
    queries, kind, names = asked or _own(data, target)
    vectors = {"images": data.image_vectors, "captions": data.caption_vectors}
    picked = np.sort(np.random.default_rng(seed).permutation(len(queries))[:MAX_QUERIES])
    sample = np.ascontiguousarray(queries[picked])
    index = artifact.index(target)
    meter = Meter(timed_queries=len(sample), rounds=1)
    with progress.stage(f"searching the index of the {target}", len(sample)) as advance:
        times = meter.times(index, sample, advance=advance)
    with progress.stage("exact search", None):
        truth = exact_search(vectors[target], sample, TRUTH_DEPTH).rows
        seen = meter.measure(index, sample, truth, kind, times=times)
    ms = times.ms[0]
    return IndexQuality(
        index=target,
        kind=index.spec.factory,
        rows=index.spec.rows,
        queries=seen.queries,
        query_kind=kind,
        logged=asked is not None,
        recall_at_1=seen.recalls[1],
        recall_at_10=seen.recalls[10],
        recall_at_50=seen.recalls[50],
        p50_ms=times.p50_ms,
        p99_ms=times.p99_ms,
        slowest=tuple(
            SlowQuery(query=names[picked[row]], ms=ms[row]) for row in np.argsort(-ms, kind="stable")[:SLOWEST_QUERIES]
        ),
    )
