"""BentoML's batch dispatchers, fed by the routes of the HTTP API as well as by BentoML's own.

BentoML's only public in-process way into a batchable API is a request to itself. Its application object, which each
request carries, has the dispatchers. This file uses these private names of bentoml, and beside it only
``without_cloud.py`` uses some, which comes before anything of bentoml. It is pinned, and
tests/serving/test_bento_dispatch.py holds each name and says what depends on it:

    Route.endpoint.func.__self__                          a route of an API knows BentoML's application object
    ServiceAppFactory.dispatchers, batch_infer            jobs join the batches of an API
    CorkDispatcher.fallback, get_batch_size               a cancelled job ends quietly; a job counts as one
    CorkDispatcher.optimizer (o_a, o_b, wait, trigger_refresh)   a batch leaves as soon as the encoder has room
    CorkDispatcher._sema.sema                             batches in flight
    CorkDispatcher._queue                                 the length of the queue, for the metrics
    CorkDispatcher.TICKET_INTERVAL                        how often it looks whether a batch may leave
    BentoMLContainer.tracer_provider                      spans of stages join BentoML's request span
    bentoml._internal.utils.circus.Arbiter                the class of the supervisor
    bentoml._internal.server.http.instruments.RunnerTrafficMetricsMiddleware   what counts requests, by their path
        ._setup, the metrics of LABELLED                  a request need not look up its series by their labels
    bentoml._internal.server.http.traffic.TimeoutMiddleware   a limit of time that counts the upload
    opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware   imported when the application is made, for spans
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn, TypeVar

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import ServiceUnavailable
from opentelemetry.trace import Tracer

from clip_retrieval import __version__
from clip_retrieval.errors import Busy, EncoderAway
from clip_retrieval.serving.engine import Encoded, EncodeJob, Engine
from clip_retrieval.serving.shared_state import QUEUES

TEXTS, IMAGES = QUEUES
"""The batchable APIs."""

LABELLED = (
    "metrics_last_request_timestamp",
    "metrics_request_duration",
    "metrics_request_in_progress",
    "metrics_request_total",
)
"""BentoML's metrics of which each request looks up a series."""

NO_ROUTE = "other"
"""The label of requests for what is not served."""
_AS_IT_CAME = "bento_clip.scope_as_it_came"

LOOK_S = 0.002
"""Seconds between two looks whether another batch of texts may leave. BentoML looks each millisecond, which takes a
twentieth of the event loop's time. While it looks, two batches are in flight, of which one has yet to be computed."""

Result = TypeVar("Result")


async def unless_away(encoding: Awaitable[Result]) -> Result:
    """The result of a batch. That the service that encodes is away is BentoML's 503 too, for its own APIs."""
    try:
        return await encoding
    except EncoderAway as error:
        raise ServiceUnavailable(str(error)) from error


class BentoDispatch:
    """Puts single jobs into the queues of BentoML's batchable APIs, and never keeps a lone one waiting.

    A dispatcher of BentoML's holds jobs back for as long as they waited on average before: 300 ms after a busy time.
    Here a batch leaves as soon as the encoder has room, and the next batch fills up while it is encoded.
    """

    def __init__(self) -> None:
        self._infer: Any = None
        self._dispatchers: dict[str, Any] = {}
        self._text_batches = 1
        """BentoML's own number of batches in flight, until ``attach``."""

    def attach(self, app: Any, *, text_batches_at_once: int) -> None:
        """Take the dispatchers from the application of a request. So many batches of texts may be in flight."""
        app.router.redirect_slashes = False  # no redirect to a trailing slash: unknown paths are 404
        route = next(route for route in app.routes if route.name == TEXTS)
        bento_app = route.endpoint.func.__self__
        self._dispatchers = bento_app.dispatchers
        for dispatcher in self._dispatchers.values():
            dispatcher.fallback = _on_cancelled_in_queue
            dispatcher.get_batch_size = len  # all that join are lists; BentoML finds out their type each time
            optimizer = dispatcher.optimizer
            optimizer.o_a = optimizer.o_b = optimizer.wait = 0
            optimizer.trigger_refresh = lambda: None
        self._dispatchers[TEXTS].TICKET_INTERVAL = LOOK_S
        self._infer = bento_app.batch_infer
        self.allow(text_batches_at_once)

    def allow(self, text_batches_at_once: int) -> None:
        """Let so many batches of texts be in flight from now on; does nothing before ``attach``."""
        if self._dispatchers:
            # The semaphore counts the places that are free.
            self._dispatchers[TEXTS]._sema.sema += text_batches_at_once - self._text_batches
            self._text_batches = text_batches_at_once

    def to(self, engine: Engine) -> "EngineDispatch":
        """A dispatcher whose jobs are for ``engine``."""
        return EngineDispatch(self, engine)

    @property
    def is_attached(self) -> bool:
        """Whether jobs can be submitted; the first request brings what is needed."""
        return self._infer is not None

    def queue_lengths(self) -> dict[str, int]:
        """How many jobs wait for the encoder, by API."""
        return {name: len(dispatcher._queue) for name, dispatcher in self._dispatchers.items()}

    async def submit_text(self, job: EncodeJob) -> Encoded:
        return await self._submit(TEXTS, job)

    async def submit_image(self, job: EncodeJob) -> Encoded:
        return await self._submit(IMAGES, job)

    async def _submit(self, api: str, job: EncodeJob) -> Encoded:
        """The result of a job. Raises Busy when it waited too long."""
        try:
            results: list[Encoded] = await self._infer(api, ([job],), {})
        except ServiceUnavailable as error:
            job.abandoned = True
            raise Busy(str(error)) from error
        except asyncio.CancelledError:
            job.abandoned = True
            raise
        return results[0]


class EngineDispatch:
    """Puts jobs into the same queues as any other, for one engine."""

    def __init__(self, dispatch: BentoDispatch, engine: Engine) -> None:
        self._dispatch, self._engine = dispatch, engine

    async def submit_text(self, job: EncodeJob) -> Encoded:
        job.engine = self._engine
        return await self._dispatch.submit_text(job)

    async def submit_image(self, job: EncodeJob) -> Encoded:
        job.engine = self._engine
        return await self._dispatch.submit_image(job)


def supervise_by(derived: Callable[[Any], Any]) -> None:
    """Have this process, which has yet to start workers, use what ``derived`` makes of BentoML's supervisor class."""
    from bentoml._internal.utils import circus

    circus.Arbiter = derived(circus.Arbiter)  # type: ignore[misc]


def count_by_route(route_of: Callable[[str], str | None]) -> None:
    """Have this process, which has yet to make BentoML's application, count requests by route and not by path.

    Each path would be a series of its own in every worker, for ever: a stranger makes up paths, and ids are many.
    ``route_of`` gives the route of a path; paths that are not served are counted together.
    """
    from bentoml._internal.server.http import instruments

    class CountedByRoute(instruments.RunnerTrafficMetricsMiddleware):
        def __init__(self, app: Any, **options: Any) -> None:
            async def as_it_came(scope: Any, receive: Any, send: Any) -> None:
                await app(scope.get(_AS_IT_CAME, scope), receive, send)

            super().__init__(as_it_came, **options)

        def _setup(self, **given: Any) -> None:  # type: ignore[override] # BentoML injects what is given
            super()._setup(**given)
            for name in LABELLED:
                setattr(self, name, _Remembered(getattr(self, name)))

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if "path" in scope:
                scope = {**scope, "path": route_of(scope["path"]) or NO_ROUTE, _AS_IT_CAME: scope}
            await super().__call__(scope, receive, send)

    instruments.RunnerTrafficMetricsMiddleware = CountedByRoute  # type: ignore[misc, assignment]


class _Remembered:
    """A metric that knows the series of labels that it was asked for: its library checks them anew each time."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._series: dict[tuple[Any, ...], Any] = {}

    def labels(self, **labels: Any) -> Any:
        """The series of these labels, which come in the same order from the same place."""
        values = tuple(labels.values())
        if (series := self._series.get(values)) is None:
            series = self._series[values] = self._metric.labels(**labels)
        return series


def no_time_limit_of_bentoml() -> None:
    """Leave out BentoML's limit of a request's time, in an application that is yet to be made.

    It would count the time in which a body comes, and it makes a task and a timer for each request, of which the timer
    lives on for as long as the limit.
    """
    from bentoml._internal.server.http import traffic

    traffic.TimeoutMiddleware = _passed_on  # type: ignore[assignment, misc]


def no_spans_of_bentoml() -> None:
    """Leave out what makes a span for each request, in an application that is yet to be made.

    BentoML makes them even if nothing collects them: a quarter of the interpreter's time for a request. Where it is
    told to leave out all paths, it still compares each with a pattern, and imports what would make the spans.
    """
    module = ModuleType("opentelemetry.instrumentation.asgi")
    module.OpenTelemetryMiddleware = _passed_on  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module


def _passed_on(app: Any, **_: Any) -> Any:
    return app


def results_of(jobs: Sequence[EncodeJob], encoded: Sequence[Encoded | None]) -> Any:
    """What each job of a batch wants: BentoML's own APIs the vector, the HTTP API all of it."""
    pairs = zip(jobs, encoded, strict=True)
    return [result.vector if result is not None and job.vector_only else result for job, result in pairs]


def tracer() -> Tracer:
    """The tracer whose spans join BentoML's; it does nothing until BentoML's tracing is turned on."""
    provider = BentoMLContainer.tracer_provider.get()
    return provider.get_tracer("bento-clip", __version__)  # type: ignore[no-any-return]


def _on_cancelled_in_queue() -> NoReturn:
    """Called for a job that was cancelled while it waited, by its client or by the dispatcher.

    BentoML's default is ServiceUnavailable for both: a client that left would be a 503 with a traceback in the log.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    raise ServiceUnavailable("the query waited too long for the encoder")
