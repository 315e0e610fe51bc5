"""The BentoML service: wiring only. ``bentoml serve clip_retrieval.service:ClipRetrieval`` starts it.

The encoder works behind BentoML's adaptive batching: the batchable APIs ``encode_texts`` and ``encode_images`` are
native BentoML APIs, and the routes of the HTTP API feed the same two queues, so that both kinds of request share
batches. Settings come from the environment; ``clip_retrieval/serving/settings.py`` lists them.
"""

from functools import partial
from typing import Annotated, Any, cast

import bentoml

from clip_retrieval.serving.beginning import PROCESS, begin
from clip_retrieval.serving.bento_worker import IS_SUPERVISED
from clip_retrieval.serving.without_cloud import load_service_parts

if IS_SUPERVISED:
    load_service_parts()
begun = begin()

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from starlette.types import Scope

from clip_retrieval.contract.queries import TextToEncode
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http import uvicorn_protocol
from clip_retrieval.http.app import create_app
from clip_retrieval.http.policy import route_of
from clip_retrieval.http.stack import middleware, wire
from clip_retrieval.serving import process, start_profile
from clip_retrieval.serving.bento_dispatch import (
    IMAGES,
    TEXTS,
    BentoDispatch,
    count_by_route,
    no_spans_of_bentoml,
    no_time_limit_of_bentoml,
    results_of,
    tracer,
    unless_away,
)
from clip_retrieval.serving.engine import EncodeJob, Engine, encode_by_engine
from clip_retrieval.serving.entry import gate_of
from clip_retrieval.serving.leading import SPLIT
from clip_retrieval.serving.native_inputs import MAX_NATIVE_BATCH, image_jobs, text_jobs
from clip_retrieval.serving.prometheus import PrometheusMetrics, Reading, resident_memory
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.worker import Worker

MAX_LATENCY_MS = 60_000
"""BentoML drops queued work that it expects to take longer; ``Admission`` bounds the queue instead, and says so."""

start_profile.mark(PROCESS, "imports")
place, settings, loader, verification = begun.place, begun.settings, begun.loader, begun.verification
process.use_log_format(settings)
begun.log_lines()
count_by_route(route_of)

state = ServerState.of(settings, place.shared, place.number, workers=process.share_cores(settings)[0])
try:
    state.gate = gate_of(settings, process.bound_host())
except ClipRetrievalError as error:
    process.end_service(place.shared, error)
app = create_app(state)
uvicorn_protocol.use_in_this_process(wire(state))
no_time_limit_of_bentoml()
if not settings.traces:
    no_spans_of_bentoml()
dispatch = BentoDispatch()
metrics = PrometheusMetrics(exported=place.shared.exported)


Texts = Annotated[
    list[TextToEncode],
    Field(min_length=1, max_length=MAX_NATIVE_BATCH),
    AfterValidator(partial(text_jobs, state=state)),
]
# Text in base64 and no file field: BentoML fetches a file field that holds a URL, whatever that points at.
Images = Annotated[
    list[str], Field(min_length=1, max_length=MAX_NATIVE_BATCH), AfterValidator(partial(image_jobs, state=state))
]


options: dict[str, Any] = {
    "name": "clip-retrieval",
    "workers": process.share_cores(settings)[0],
    "logging": {"access": {"enabled": False}},  # ``AccessLog`` has the line
    # ``traffic.timeout`` has no effect: ``Intake`` and ``Admission`` bound the time of a request.
}


@bentoml.service(
    resources={"cpu": "2", "memory": "1536Mi"},  # for BentoCloud alone, as is the concurrency
    traffic={"concurrency": 2 * settings.max_batch_size},  # a full batch is computed, the next one gathers
    **options,
)
@bentoml.asgi_app(app, path="/")
class ClipRetrieval:
    """Text and images to images and captions."""

    encoder: Any = None
    """The service that encodes for this one, if there is such a one: ``split_service.py``."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Make this process the supervisor, before it starts a worker and listens."""
        if settings.encoder_url is not None:
            raise SystemExit(
                f"bento-clip: BENTO_CLIP_ENCODER_URL is set, of which this service makes no use: serve {SPLIT}"
            )
        process.prepare(settings, begun.tag, begun.folder)

    def __init__(self) -> None:
        start_profile.mark(PROCESS, "routes and middleware")
        process.prefer_searches()
        if self.encoder is not None:
            # Here, since aiohttp takes a twentieth of a start and only this has use for it.
            from clip_retrieval.serving.encoder_proxy import EncoderProxy

            loader.ask(EncoderProxy(self.encoder))
        if IS_SUPERVISED:
            process.leave_alone()
        try:
            self.worker = Worker(state, place, dispatch, metrics, loader, begun.tag, verification)
        except Exception as error:
            _end_of_start(error)
            raise
        for api in (TEXTS, IMAGES):
            # BentoML binds an API anew each time that it is looked up: 9 % of the event loop. Bound here it is the
            # method itself, which is what BentoML's batches call; called on ``self`` it would not batch.
            setattr(self, api, getattr(self, api))
        state.tracer = tracer()
        state.observe = metrics.observe
        state.queue_lengths = dispatch.queue_lengths

    @bentoml.on_startup
    async def start(self) -> None:
        try:
            await self.worker.start()
        except Exception as error:
            _end_of_start(error)
            raise

    @bentoml.on_shutdown
    async def stop(self) -> None:
        await self.worker.stop()

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=MAX_LATENCY_MS)
    async def encode_texts(self, texts: Texts) -> NDArray[np.float32]:
        """Unit vectors of texts, float32 (n, dim)."""
        jobs = cast("list[EncodeJob]", texts)  # validation made them
        return results_of(jobs, await unless_away(encode_by_engine(jobs, self.worker.engine, Engine.encode_texts)))

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=MAX_LATENCY_MS)
    async def encode_images(self, images: Images) -> NDArray[np.float32]:
        """Unit vectors of base64-encoded images, float32 (n, dim)."""
        jobs = cast("list[EncodeJob]", images)
        return results_of(jobs, await unless_away(encode_by_engine(jobs, self.worker.engine, Engine.encode_images)))


def _end_of_start(error: Exception) -> None:
    """End the service if this worker knows a reason why no worker of it can start; a damaged artifact is the first."""
    if not IS_SUPERVISED:
        return
    try:
        if verification is not None:
            verification.wait()
    except ClipRetrievalError as damage:
        process.end_service(place.shared, damage)
    if isinstance(error, ClipRetrievalError):
        process.end_service(place.shared, error)


def _refresh_metrics() -> None:
    state.publish()
    with place.shared.lock():
        metrics.take(Reading.of(place.shared), resident_memory(place.shared, supervised=IS_SUPERVISED))


def _attach_dispatch(scope: Scope) -> bool:
    if state.service is None:
        return False
    dispatch.attach(scope["app"], text_batches_at_once=state.service.retriever.encoder.text_batches_at_once)
    return True


def add_middleware(service: bentoml.Service[Any]) -> None:
    """Put the middleware around a service; ends the process if a setting of it cannot be used."""
    try:
        stack = middleware(state, own=app, before_scrape=_refresh_metrics, on_request=_attach_dispatch)
    except ClipRetrievalError as error:
        process.end_service(place.shared, error)
    for each, its_options in stack:
        service.add_asgi_middleware(each, **its_options)


add_middleware(cast("bentoml.Service[Any]", ClipRetrieval))
