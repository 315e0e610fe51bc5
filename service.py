"""The BentoML service: wiring only. ``bentoml serve service:ClipRetrieval`` starts it.

The encoder works behind BentoML's adaptive batching: the batchable APIs ``encode_texts`` and ``encode_images`` are
native BentoML APIs, and the routes of the HTTP API feed the same two queues, so that both kinds of request share
batches. Settings come from the environment; ``clip_retrieval/serving/settings.py`` lists them.
"""

from functools import partial
from typing import Annotated, cast

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from starlette.types import Scope

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.base import Text
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http import uvicorn_protocol
from clip_retrieval.http.app import create_app
from clip_retrieval.http.stack import middleware
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import json_logs, process
from clip_retrieval.serving.bento_dispatch import IMAGES, IS_SUPERVISED, TEXTS, BentoDispatch, results_of, tracer
from clip_retrieval.serving.engine import EncodeJob, Engine
from clip_retrieval.serving.native_inputs import MAX_NATIVE_BATCH, image_jobs, text_jobs
from clip_retrieval.serving.prometheus import PrometheusMetrics, Reading, resident_memory
from clip_retrieval.serving.state import ServerState

MAX_LATENCY_MS = 60_000
"""BentoML drops queued work that it expects to take longer; ``Admission`` bounds the queue instead, and says so."""

settings = process.read_settings()
try:
    tag, folder = modelstore.resolve(settings.artifact)
except ClipRetrievalError as error:
    raise SystemExit(f"bento-clip: {error}") from None
workers, encoder_threads = process.share_cores(settings)
if settings.log_format == "json":
    json_logs.use_json()
json_logs.skip_unused_fields()
uvicorn_protocol.use_in_this_process()

state = ServerState.of(settings)
app = create_app(state)
dispatch = BentoDispatch()
metrics = PrometheusMetrics()


Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_NATIVE_BATCH), AfterValidator(text_jobs)]
# Text in base64 and no file field: BentoML fetches a file field that holds a URL, whatever that points at.
Images = Annotated[
    list[str], Field(min_length=1, max_length=MAX_NATIVE_BATCH), AfterValidator(partial(image_jobs, state=state))
]


@bentoml.service(
    name="clip-retrieval",
    workers=workers,
    logging={"access": {"enabled": False}},  # ``AccessLog`` has the line
    # BentoML makes spans even if nothing collects them: a quarter of the interpreter's time for a request.
    **({} if settings.traces else {"tracing": {"excluded_urls": ".*"}}),
    traffic={"timeout": settings.request_timeout_s + 5},  # ``Admission`` answers before this cuts
)
@bentoml.asgi_app(app, path="/")
class ClipRetrieval:
    """Text and images to images and captions."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse an artifact that cannot be used in the supervisor, before it starts a worker and listens."""
        try:
            process.check_changes(settings, Artifact.open(folder).manifest.encoder)
        except ClipRetrievalError as error:
            raise SystemExit(f"bento-clip: {error}") from None

    def __init__(self) -> None:
        process.prefer_searches()
        try:
            self.engine = Engine(self._load)
            self.retriever = self.engine.retriever
            state.serve(self.retriever, dispatch, tag)
            opened = process.open_changes(settings, self.retriever.encoder.info)
            if isinstance(opened, str):
                state.frozen_because = opened
            else:
                state.take_changes(opened, str(settings.changes))
        except ClipRetrievalError as error:
            if not IS_SUPERVISED:
                raise
            process.end_with_message(error)
        for api in (TEXTS, IMAGES):
            # BentoML binds an API anew each time that it is looked up: 9 % of the event loop. Bound here it is the
            # method itself, which is what BentoML's batches call; called on ``self`` it would not batch.
            setattr(self, api, getattr(self, api))
        state.tracer = tracer()
        state.observe = metrics.observe
        metrics.describe(tag, self.retriever.collection.manifest)

    def _load(self) -> Retriever:
        artifact = Artifact.open(folder, verify=not IS_SUPERVISED)
        return Retriever(artifact, artifact.encoder(precision=settings.precision, threads=encoder_threads))

    @bentoml.on_startup
    async def warm_up(self) -> None:
        await self.engine.warm_up()
        if state.changes is not None:
            state.changes.start()
        process.freeze_heap()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        if state.changes is not None:
            await state.changes.stop()

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=MAX_LATENCY_MS)
    async def encode_texts(self, texts: Texts) -> NDArray[np.float32]:
        """Unit vectors of texts, float32 (n, dim)."""
        jobs = cast("list[EncodeJob]", texts)  # validation made them
        return results_of(jobs, await self.engine.encode_texts(jobs))

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=MAX_LATENCY_MS)
    async def encode_images(self, images: Images) -> NDArray[np.float32]:
        """Unit vectors of base64-encoded images, float32 (n, dim)."""
        jobs = cast("list[EncodeJob]", images)
        return results_of(jobs, await self.engine.encode_images(jobs))


def _refresh_metrics() -> None:
    reading = Reading.of(state.traffic, state.answers, dispatch.queue_lengths())
    metrics.take(reading, resident_memory(supervised=IS_SUPERVISED))


def _attach_dispatch(scope: Scope) -> bool:
    if state.service is None:
        return False
    dispatch.attach(scope["app"], text_batches_at_once=state.service.retriever.encoder.text_batches_at_once)
    return True


_service = cast("bentoml.Service[ClipRetrieval]", ClipRetrieval)
for _middleware, _options in middleware(state, before_scrape=_refresh_metrics, on_request=_attach_dispatch):
    _service.add_asgi_middleware(_middleware, **_options)
