"""The service that encodes for ``split_service.py``, beside it or on a machine of its own with a GPU.

    bentoml serve clip_retrieval.encoder_service:ClipEncoder

It has the encoder of an artifact and no collection. Its inputs are made where the queries come in: token ids, and
pixels as ``vector_text.py`` writes them. Batches are BentoML's adaptive ones, of what all services send that ask it.
It asks for no key: it is for these services alone.
"""

from pathlib import Path
from typing import Annotated, cast

import bentoml
from pydantic import AfterValidator, Field
from starlette.types import Scope

from clip_retrieval.encoders.base import Pixels, Tokens
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http.middleware.first_request import UntilDone
from clip_retrieval.serving import process
from clip_retrieval.serving.bento_dispatch import BentoDispatch, no_spans_of_bentoml
from clip_retrieval.serving.bento_worker import ENCODER, IS_SUPERVISED
from clip_retrieval.serving.encoder_worker import EncoderWorker
from clip_retrieval.serving.engine import EncodeJob
from clip_retrieval.serving.vector_text import as_text
from clip_retrieval.serving.without_cloud import load_service_parts

MAX_LATENCY_MS = 60_000
"""BentoML drops queued work that it expects to take longer; the services that ask bound their requests themselves."""

MAX_INPUTS = 512
"""Most inputs of one message: the largest batch of a service that asks."""

HAS_GPU = Path("/dev/nvidiactl").exists()
"""Whether this machine has a GPU of Nvidia's. An encoder of the runtime torch computes on it."""

if IS_SUPERVISED:
    load_service_parts()
settings = process.read_settings()
no_spans_of_bentoml()
dispatch = BentoDispatch()
worker = EncoderWorker(settings)

Texts = Annotated[
    list[list[Annotated[int, Field(ge=0)]]],
    Field(min_length=1, max_length=MAX_INPUTS),
    AfterValidator(worker.texts),
]
Images = Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS), AfterValidator(worker.images)]


@bentoml.service(
    name=ENCODER,
    workers=process.ENCODER_WORKERS,
    resources={"gpu": 1} if HAS_GPU else {"cpu": "2", "memory": "1Gi"},  # for BentoCloud alone, as is the concurrency
    traffic={"concurrency": 2 * settings.max_batch_size},
    logging={"access": {"enabled": False}},
    # By default BentoML's proxy closes its connections after 100 messages, those with a message in progress too.
    runner_connection={"max_requests": 2**31, "max_age": float(2**31)},
)
class ClipEncoder:
    """Token ids and pixels to unit vectors."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse an artifact that cannot be used before a worker is started."""
        try:
            tag, folder = process.find_artifact(settings.artifact)
        except ClipRetrievalError as error:
            raise SystemExit(f"bento-clip: {error}") from None
        process.use_log_format(settings)
        process.prepare_encoder(tag, folder)

    def __init__(self) -> None:
        process.use_log_format(settings)
        worker.load()

    @bentoml.on_startup
    async def start(self) -> None:
        await worker.start()
        process.freeze_heap()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        worker.stop()

    @bentoml.api
    async def fingerprint(self) -> str:
        """The fingerprint of the encoder, which names its weights, its tokenizer and its preprocessing."""
        return worker.engine.encoder.info.fingerprint

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=MAX_LATENCY_MS)
    async def encode_texts(self, texts: Texts) -> list[str]:
        """The unit vector of each text of token ids, in base64 of float32 (dim,)."""
        jobs = [EncodeJob(tokens) for tokens in cast("list[Tokens]", texts)]  # validation made them
        return [as_text(one.vector) for one in await worker.engine.encode_texts(jobs) if one is not None]

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=MAX_LATENCY_MS)
    async def encode_images(self, images: Images) -> list[str]:
        """The unit vector of each image of pixels in base64, in base64 of float32 (dim,)."""
        jobs = [EncodeJob(pixels) for pixels in cast("list[Pixels]", images)]
        return [as_text(one.vector) for one in await worker.engine.encode_images(jobs) if one is not None]


def _attach_dispatch(scope: Scope) -> bool:
    dispatch.attach(scope["app"], text_batches_at_once=worker.engine.encoder.text_batches_at_once)
    return True


cast("bentoml.Service[ClipEncoder]", ClipEncoder).add_asgi_middleware(UntilDone, hook=_attach_dispatch)
