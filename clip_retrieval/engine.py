"""Queries answered a batch at a time: encode them together, search each, look up the records.

Knows nothing of HTTP and nothing of how a batch came to be. A batch fails whole, so everything in it has been decoded
and validated before: texts are not empty, pictures are preprocessed pixels.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_retrieval.artifact import Modality
from clip_retrieval.encoders.base import Pixels, Vectors
from clip_retrieval.retriever import CaptionHit, ImageHit, Retriever


@dataclass(frozen=True, slots=True)
class Query:
    """One text or one preprocessed picture, and what to find for it; with ``target`` None only its vector is wanted."""

    content: str | Pixels
    target: Modality | None = None
    k: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query got. ``encode_s`` is the wall time of its batch's encoding, ``search_s`` that of its own index
    search, both in seconds."""

    vector: Vectors
    images: list[ImageHit]
    captions: list[CaptionHit]
    encode_s: float
    search_s: float


def answer_texts(retriever: Retriever, queries: Sequence[Query]) -> list[Answer]:
    """Answer text queries as one batch, in order."""
    start = time.perf_counter()
    vectors = retriever.encoder.encode_texts([str(query.content) for query in queries])
    return _search(retriever, queries, vectors, time.perf_counter() - start)


def answer_images(retriever: Retriever, queries: Sequence[Query]) -> list[Answer]:
    """Answer picture queries as one batch, in order."""
    start = time.perf_counter()
    vectors = retriever.encoder.encode_pixels(np.stack([np.asarray(query.content) for query in queries]))
    return _search(retriever, queries, vectors, time.perf_counter() - start)


def _search(retriever: Retriever, queries: Sequence[Query], vectors: Vectors, encode_s: float) -> list[Answer]:
    answers = []
    for query, vector in zip(queries, vectors, strict=True):
        images: list[ImageHit] = []
        captions: list[CaptionHit] = []
        search_s = 0.0
        if query.target is not None:
            found, search_s = retriever.find(query.target, vector, query.k)
            if query.target == "images":
                images = retriever.image_hits(found)
            else:
                captions = retriever.caption_hits(found)
        answers.append(Answer(vector, images, captions, encode_s, search_s))
    return answers
