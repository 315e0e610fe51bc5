"""The BentoML service: wiring only. ``bentoml serve service:ClipRetrieval`` starts it.

The encoder works behind BentoML's adaptive batching: the batchable APIs ``encode_texts`` and ``encode_images`` are
native BentoML APIs, and the routes of the HTTP API feed the same two dispatchers, so that both kinds of request share
batches. Settings come from the environment; see ``clip_retrieval/config.py``.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, NoReturn, cast

import bentoml
import numpy as np
from bentoml._internal.configuration.containers import BentoMLContainer  # owns the tracer provider; bentoml is pinned
from bentoml.exceptions import ServiceUnavailable
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from threadpoolctl import threadpool_limits

from clip_retrieval import __version__
from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.base import Text, describe
from clip_retrieval.contract.queries import SearchRequest
from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Pixels
from clip_retrieval.errors import ClipRetrievalError, ImageRejected
from clip_retrieval.http import uvicorn_protocol as http_protocol
from clip_retrieval.http.app import create_app
from clip_retrieval.http.middleware import Disconnects, ErrorBodies, Guard, MediaTypes
from clip_retrieval.http.scrape import BeforeScrape
from clip_retrieval.images.decode import Limits, decode_part
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.search.hits import Found
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving import json_logs as logs
from clip_retrieval.serving.engine import Answer, Engine, Query
from clip_retrieval.serving.prometheus import Metrics, Reading, resident_memory
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.traffic import Traffic

MAX_NATIVE_BATCH = 64
WAIT_MS = 60_000
"""BentoML drops queued work that it expects to take longer; ``Guard`` bounds the queue instead, and says so."""

SWITCH_INTERVAL_S = 0.0001
"""How long a search that is done may wait for the interpreter while another thread runs; Python's default is 5 ms."""

OBJECTS_A_COLLECTION = 10_000
"""Python looks for circular garbage after so many new objects. Requests leave none, and 64 under way have some 7,000
objects, all of which would be looked at again and again with Python's default of 700."""

CORES_A_WORKER = 8
"""One process answers as many requests as one core can handle; about so many cores more keep its encoder busy."""

SLOW_PATHS = ("/search/text", "/search/similar", "/encode/image", "/encode_images")
SMALL_BODIES = {"/search/images": 2**16, "/encode/text": 2**16, "/encode_texts": 2**20}
"""Paths that read text alone, and the most bytes of their JSON."""

try:
    settings = Settings()
    tag, folder = modelstore.resolve(settings.artifact)
except ValidationError as error:
    raise SystemExit(f"bento-clip: a BENTO_CLIP_ setting is not valid: {describe(error.errors())}") from None
except ClipRetrievalError as error:
    raise SystemExit(f"bento-clip: {error}") from None
workers = settings.workers or max(1, usable_cores() // CORES_A_WORKER)
encoder_threads = settings.encoder_threads or max(1, usable_cores() // workers)
if settings.log_format == "json":
    logs.use_json()
http_protocol.use_in_this_process()
logs.skip_unused_fields()
limits = Limits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
app = create_app(settings)

metrics = Metrics()
traffic = Traffic()


def _pixels(images: list[str]) -> list[Pixels]:
    """Decode base64 images while their request is validated, before they can join a batch.

    BentoML validates in its event loop, so ``max_pixels`` bounds all images of a request together.
    """
    preprocess = app.state.api.backend.retriever.encoder.preprocess
    pixels, left = [], limits.max_pixels
    for number, encoded in enumerate(images):
        try:
            image = decode_part(encoded, replace(limits, max_pixels=left))
        except ImageRejected as error:
            raise ValueError(f"image {number}: {error}") from error
        left -= image.width * image.height
        pixels.append(preprocess(image))
    return pixels


Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_NATIVE_BATCH)]
# Text in base64 and no file field: BentoML fetches a file field that holds a URL, whatever that points at.
Images = Annotated[list[str], Field(min_length=1, max_length=MAX_NATIVE_BATCH), AfterValidator(_pixels)]


SUPERVISED = "BENTOML_RUNNER_MAP" in os.environ
"""Whether this is a worker of ``bentoml serve``, whose supervisor has checked the artifact already."""


class Dispatch:
    """Finds BentoML's own batch dispatchers for the HTTP API, and has them never keep a lone query waiting.

    BentoML's only in-process way into a batchable API is a request to itself. Its application object, which each
    request carries, has the dispatchers; bentoml is pinned for this, and the end-to-end test holds it. A dispatcher
    holds queries back for as long as they waited on average before, 300 ms after a busy time. Here a batch leaves as
    soon as the encoder has room: the company that makes batching pay gathers while others are encoded. BentoML has one
    batch of an API under way at a time; of texts it may be two, so that one is encoded while the other is searched.
    """

    infer: Any = None
    dispatchers: ClassVar[dict[str, Any]] = {}

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Dispatch.infer is None and scope["type"] == "http" and (backend := app.state.api.backend) is not None:
            scope["app"].router.redirect_slashes = False  # /images is as wrong as /image, and is answered so
            route = next(route for route in scope["app"].routes if route.name == "encode_texts")
            bento_app = route.endpoint.func.__self__
            Dispatch.dispatchers = bento_app.dispatchers
            for dispatcher in bento_app.dispatchers.values():
                dispatcher.fallback = _given_up
                dispatcher.get_batch_size = len  # all that join are lists; BentoML looks up what they are each time
                optimizer = dispatcher.optimizer
                optimizer.o_a = optimizer.o_b = optimizer.wait = 0
                optimizer.trigger_refresh = lambda: None
            bento_app.dispatchers["encode_texts"]._sema.sema = backend.engine.text_batches_at_once
            Dispatch.infer = bento_app.batch_infer
        await self._app(scope, receive, send)


@bentoml.service(
    name="clip-retrieval",
    workers=workers,
    logging={"access": {"enabled": settings.access_log}},
    # BentoML makes spans whether anybody collects them or not: a quarter of the interpreter's time for a request.
    **({} if settings.traces else {"tracing": {"excluded_urls": ".*"}}),
    traffic={"timeout": settings.request_timeout_s + 5},  # ``Guard`` answers before this cuts
)
@bentoml.asgi_app(app, path="/")
class ClipRetrieval:
    """Text and images to images and captions."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Refuse an artifact that cannot be used in the supervisor, before it starts a worker and listens."""
        try:
            Artifact.open(folder)
        except ClipRetrievalError as error:
            raise SystemExit(f"bento-clip: {error}") from None

    def __init__(self) -> None:
        def load() -> Retriever:
            artifact = Artifact.open(folder, verify=not SUPERVISED)
            encoder = artifact.encoder(precision=settings.precision, threads=encoder_threads)
            return Retriever(artifact, encoder)

        sys.setswitchinterval(SWITCH_INTERVAL_S)
        search_on_one_thread()
        threadpool_limits(1, user_api="blas")  # numpy's, for exact searches: its threads would wait for the encoder's
        try:
            self.engine = Engine(load, vectors_kept=settings.cache_size)
        except ClipRetrievalError as error:
            _end(error)
        for api in ("encode_texts", "encode_images"):
            # BentoML binds an API anew, signature and all, each time that it is looked up: 9 % of the event loop. Bound
            # here it is the method itself, which is what BentoML's batches call; called on ``self`` it would not batch.
            setattr(self, api, getattr(self, api))
        self.artifact = tag
        self.retriever = self.engine.retriever
        app.state.api.backend = self
        app.state.api.tracer = BentoMLContainer.tracer_provider.get().get_tracer("bento-clip", __version__)
        metrics.describe(self.artifact, self.retriever.artifact.manifest)

    @bentoml.on_startup
    async def warm_up(self) -> None:
        """Answer one query of each kind before the first that counts."""
        blank = self.retriever.encoder.preprocess(Image.new("RGB", (64, 64)))
        await self.engine.answer_texts([Query("warm-up", "images", 1)])
        await self.engine.answer_images([Query(blank, "images", 1)])
        # What is there now stays. Without this the collector looks through all of it again, and nothing is answered
        # for the quarter of a second that this takes under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(OBJECTS_A_COLLECTION)

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=WAIT_MS)
    async def encode_texts(self, texts: Texts) -> NDArray[np.float32]:
        """Unit vectors of texts, float32 (n, dim)."""
        return await _mixed_batch(texts, self.engine.answer_texts)

    @bentoml.api(batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=WAIT_MS)
    async def encode_images(self, images: Images) -> NDArray[np.float32]:
        """Unit vectors of base64-encoded images, float32 (n, dim)."""
        return await _mixed_batch(images, self.engine.answer_images)

    async def answer_text(self, query: Query) -> Answer:
        return await _dispatch("encode_texts", query)

    async def answer_image(self, query: Query) -> Answer:
        return await _dispatch("encode_images", query)

    async def search(self, vector: NDArray[np.float32], request: SearchRequest) -> Found:
        return await self.engine.search(vector, request)

    def observe(self, stage: str, seconds: float) -> None:
        metrics.observe(stage, seconds)


def _refresh_metrics() -> None:
    state = app.state.api
    reading = Reading(
        pending=traffic.pending,
        turned_away=traffic.turned_away,
        queued={name: len(dispatcher._queue) for name, dispatcher in Dispatch.dispatchers.items()},
        cache_size=len(state.cache),
        cache_hits=state.recorder.cache_hits,
        cache_misses=state.recorder.cache_misses,
    )
    metrics.take(reading, resident_memory(supervised=SUPERVISED))


def _given_up() -> NoReturn:
    """What a dispatcher does with a query that was cancelled while it waited, by its client or by the dispatcher.

    BentoML's own way is ServiceUnavailable for both: a client that left would be a 503 with a traceback in the log.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    raise ServiceUnavailable("the query waited too long for the encoder")


async def _dispatch(api: str, query: Query) -> Answer:
    try:
        answers: list[Answer] = await Dispatch.infer(api, ([query],), {})
    except (ServiceUnavailable, asyncio.CancelledError) as error:
        query.abandoned = True
        if isinstance(error, ServiceUnavailable):
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        raise
    return answers[0]


def _end(error: ClipRetrievalError) -> NoReturn:
    """End the server with one sentence; its supervisor would start a worker that fails again and again."""
    if not SUPERVISED:
        raise error
    sys.stderr.write(f"bento-clip: {error}\n")
    sys.stderr.flush()
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(1)


async def _mixed_batch(items: Sequence[Any], answer: Callable[[list[Query]], Awaitable[list[Answer | None]]]) -> Any:
    """Answer a batch in which native inputs and queries of the HTTP API are mixed, each in its own kind."""
    answers = await answer([item if isinstance(item, Query) else Query(item) for item in items])
    pairs = zip(items, answers, strict=True)
    return [found if found is None or isinstance(item, Query) else found.vector for item, found in pairs]


_service = cast("bentoml.Service[ClipRetrieval]", ClipRetrieval)
_service.add_asgi_middleware(Disconnects)  # outermost: ErrorBodies has no words for a client that is gone
_service.add_asgi_middleware(ErrorBodies)
_service.add_asgi_middleware(
    MediaTypes,
    expected={
        **dict.fromkeys(SMALL_BODIES, "application/json"),
        **dict.fromkeys(("/search", "/search/batch", "/encode_images"), "application/json"),
        **dict.fromkeys(("/search/text", "/search/similar", "/encode/image"), "multipart/form-data"),
    },
)
_service.add_asgi_middleware(
    Guard,
    max_body_bytes=settings.max_upload_bytes + 64 * 1024,  # the multipart frame around an image
    max_pending=settings.max_pending,
    timeout_s=settings.request_timeout_s,
    slow_paths=SLOW_PATHS,
    max_slow=settings.max_pending_images,
    smaller_bodies=SMALL_BODIES,
    traffic=traffic,
)
_service.add_asgi_middleware(BeforeScrape, refresh=_refresh_metrics)
_service.add_asgi_middleware(Dispatch)
