"""Inputs of BentoML's own APIs as jobs for the encoder.

They are made while a request is validated, before it can join a batch: a batch fails whole. BentoML validates in the
event loop, so images are decoded before, and the validation finds them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from math import prod

from clip_retrieval.access import cost
from clip_retrieval.access.limits import pay_now
from clip_retrieval.contract.queries import TextToEncode
from clip_retrieval.encoders.base import Pixels
from clip_retrieval.errors import ImageRejected, InvalidQuery
from clip_retrieval.search.query import Base64Image
from clip_retrieval.serving.decoders import Decoded, decode_together
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.state import ServerState

MAX_NATIVE_BATCH = 64
"""Most inputs of one request."""

_BYTES_PER_VALUE = 4

_decoded: ContextVar[Sequence[Pixels | ImageRejected]] = ContextVar("decoded")
"""The images of the request that is handled, in order."""


def text_jobs(texts: Sequence[TextToEncode], state: ServerState) -> list[EncodeJob]:
    """The texts as jobs.

    Raises ValueError for a language that the model does not know, and for what is over the caller's limit.
    """
    pay_now(cost.TEXT * len(texts))  # nothing is owed where ``NativeTexts`` has read the same list
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


@asynccontextmanager
async def decoded_beforehand(images: Sequence[str], state: ServerState) -> AsyncIterator[None]:
    """Decode images in base64, for ``image_jobs`` inside of this context.

    Their pixels are held until the context ends. Raises Busy and TooCostly if there is no memory for them.
    """
    encoder = state.require_service().retriever.encoder
    size = len(images) * 3 * prod(encoder.info.image_size) * _BYTES_PER_VALUE
    with state.budget.bodies.held(size):
        found = [
            one.pixels if isinstance(one, Decoded) else one
            async for one in decode_together(state.decoders, map(Base64Image, images), state.limits, encoder)
        ]
        token = _decoded.set(found)
        try:
            yield
        finally:
            _decoded.reset(token)


def image_jobs(images: Sequence[str], state: ServerState) -> list[EncodeJob]:
    """The images of this request as jobs; their texts have been decoded. Raises ValueError for one that is not
    acceptable.
    """
    engine = state.served.engine if state.served else None
    jobs = []
    for number, pixels in zip(range(len(images)), _decoded.get(), strict=True):
        if isinstance(pixels, ImageRejected):
            raise ValueError(f"image {number}: {pixels}") from pixels
        jobs.append(EncodeJob(pixels, vector_only=True, engine=engine))
    return jobs
