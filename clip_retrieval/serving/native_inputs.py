"""Inputs of BentoML's own batchable APIs as jobs for the encoder.

They are made while a request is validated, before it can join a batch: a batch fails whole.
"""

from collections.abc import Sequence

from clip_retrieval.access import cost
from clip_retrieval.access.limits import pay_now
from clip_retrieval.contract.queries import TextToEncode
from clip_retrieval.errors import ImageRejected, InvalidQuery
from clip_retrieval.search.query import Base64Image, decode_together
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.state import ServerState

MAX_NATIVE_BATCH = 64
"""Most inputs of one request."""


def text_jobs(texts: Sequence[TextToEncode], state: ServerState) -> list[EncodeJob]:
    """The texts as jobs.

    Raises ValueError for a language that the model does not know, and for what is over the caller's limit.
    """
    pay_now(cost.TEXT * len(texts))
    engine = state.served.engine if state.served else None
    jobs = []
    for number, given in enumerate(texts):
        if given.language is not None:
            try:
                state.require_service().retriever.encoder.check_language(given.language)
            except InvalidQuery as error:
                raise ValueError(f"text {number}: {error}") from error
        jobs.append(EncodeJob(given.text, language=given.language, vector_only=True, engine=engine))
    return jobs


def image_jobs(images: Sequence[str], state: ServerState) -> list[EncodeJob]:
    """The images in base64, decoded.

    Raises ValueError for one that is not acceptable, and for what is over the caller's limit.
    """
    pay_now(cost.IMAGE * len(images))
    preprocess = state.require_service().retriever.encoder.preprocess
    engine = state.served.engine if state.served else None
    jobs = []
    for number, image in enumerate(decode_together(map(Base64Image, images), state.limits)):
        if isinstance(image, ImageRejected):
            raise ValueError(f"image {number}: {image}") from image
        jobs.append(EncodeJob(preprocess(image), vector_only=True, engine=engine))
    return jobs
