"""Inputs of BentoML's own batchable APIs as jobs for the encoder.

They are made while a request is validated, before it can join a batch: a batch fails whole.
"""

from collections.abc import Sequence

from clip_retrieval.errors import ImageRejected
from clip_retrieval.search.query import Base64Image, decode_together
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.state import ServerState

MAX_NATIVE_BATCH = 64
"""Most inputs of one request."""


def text_jobs(texts: Sequence[str], state: ServerState) -> list[EncodeJob]:
    engine = state.served.engine if state.served else None
    return [EncodeJob(text, vector_only=True, engine=engine) for text in texts]


def image_jobs(images: Sequence[str], state: ServerState) -> list[EncodeJob]:
    """The images in base64, decoded. Raises ValueError for one that is not acceptable."""
    preprocess = state.require_service().retriever.encoder.preprocess
    engine = state.served.engine if state.served else None
    jobs = []
    for number, image in enumerate(decode_together(map(Base64Image, images), state.limits)):
        if isinstance(image, ImageRejected):
            raise ValueError(f"image {number}: {image}") from image
        jobs.append(EncodeJob(preprocess(image), vector_only=True, engine=engine))
    return jobs
