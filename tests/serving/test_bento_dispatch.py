"""BentoML's private names that ``serving/bento_dispatch.py`` uses.

If a test fails after an upgrade of BentoML, its message says what no longer works. The end-to-end tests show the same
from outside.
"""

import asyncio
import inspect
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.marshal.dispatcher import CorkDispatcher
from bentoml.exceptions import ServiceUnavailable

from clip_retrieval.errors import Busy, EncoderAway
from clip_retrieval.serving.bento_dispatch import (
    IMAGES,
    LOOK_S,
    TEXTS,
    BentoDispatch,
    results_of,
    tracer,
    unless_away,
)
from clip_retrieval.serving.engine import Encoded, EncodeJob

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it uses names that pydantic deprecated
    from _bentoml_impl.server.app import ServiceAppFactory


def dispatcher() -> CorkDispatcher[Any, Any]:
    return CorkDispatcher(60_000, 32, fallback=lambda: None, get_batch_size=len)


def test_an_application_infers_in_batches() -> None:
    names = list(inspect.signature(ServiceAppFactory.batch_infer).parameters)
    assert names == ["self", "name", "input_args", "input_kwargs"], "jobs of the HTTP API join no batch"
    assert "self.dispatchers" in inspect.getsource(ServiceAppFactory), "the queues are not found"


def test_a_dispatcher_can_be_told_not_to_wait() -> None:
    optimizer = dispatcher().optimizer
    for name in ("o_a", "o_b", "wait", "trigger_refresh"):
        assert hasattr(optimizer, name), f"a lone job is held back: there is no {name}"


def test_a_dispatcher_says_how_many_jobs_wait_and_how_many_batches_are_in_flight() -> None:
    assert len(dispatcher()._queue) == 0, "the metric of queued jobs is wrong"
    assert dispatcher()._sema.sema == 1, "two batches of texts are not in flight together"


def test_there_is_a_tracer_provider() -> None:
    assert hasattr(BentoMLContainer.tracer_provider.get(), "get_tracer"), "stages have no spans"
    assert tracer() is not None


def test_an_encoder_that_is_away_is_503_for_bentoml() -> None:
    async def encoding() -> None:
        raise EncoderAway("the encoder service does not answer")

    with pytest.raises(ServiceUnavailable, match="does not answer"):
        asyncio.run(unless_away(encoding()))


def test_the_supervisor_is_of_the_class_that_is_given() -> None:
    code = """
from bentoml._internal.utils import circus
from clip_retrieval.serving.bento_dispatch import supervise_by
made = []
class Ours:
    def __init__(self, watchers, **options):
        made.append(watchers)
supervise_by(lambda kind: Ours)
circus.create_standalone_arbiter([])
assert made == [[]]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the ports of circus are open, and failures end with status 0: {done.stderr}"


def test_requests_are_counted_by_route_and_reach_the_application_as_they_came() -> None:
    code = """
import asyncio, sys, types
from unittest.mock import MagicMock
from _bentoml_impl.server.app import ServiceAppFactory  # imports the class when it makes the application
from bentoml._internal.server.http import instruments
from clip_retrieval.serving.bento_dispatch import count_by_route
count_by_route({"/known/a": "/known/{id}"}.get)
counted, reached = [], []
class Metric:
    def __getattr__(self, name):
        return MagicMock()
    def labels(self, **labels):
        counted.append(labels.get("endpoint"))
        return MagicMock()
async def app(scope, receive, send):
    reached.append(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
async def send(message): ...
made = instruments.RunnerTrafficMetricsMiddleware(app, namespace="x")
made._is_setup = True
for name in ("request_duration", "request_total", "request_in_progress", "last_request_timestamp"):
    setattr(made, f"metrics_{name}", Metric())
for path in ("/known/a", "/made/up"):
    asyncio.run(made({"type": "http", "path": path}, None, send))
assert reached == ["/known/a", "/made/up"], reached
assert set(counted) - {None} == {"/known/{id}", "other"}, counted
assert counted.count("other") == 3, counted
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"every path that a stranger makes up is a series for ever: {done.stderr}"


def test_the_series_of_a_route_is_looked_up_once() -> None:
    code = """
import asyncio, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from _bentoml_impl.server.app import ServiceAppFactory
import prometheus_client
from prometheus_client.metrics import MetricWrapperBase
from bentoml._internal.server.http import instruments
from clip_retrieval.serving.bento_dispatch import LABELLED, count_by_route
count_by_route({"/known/a": "/known/{id}"}.get)
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
async def send(message): ...
made = instruments.RunnerTrafficMetricsMiddleware(app, namespace="x")
scope = {"type": "http", "path": "/known/a"}
asyncio.run(made(scope, None, send))
looked, own = [], MetricWrapperBase.labels
MetricWrapperBase.labels = lambda self, *given, **named: looked.append(named) or own(self, *given, **named)
asyncio.run(made(scope, None, send))
asyncio.run(made({**scope, "path": "/made/up"}, None, send))
assert len(looked) == 3, looked  # of the second route; the last request has no route among its labels
assert {one["endpoint"] for one in looked} == {"other"}, looked
counted = {name: getattr(made, name) for name in LABELLED}
assert set(map(type, counted.values())) == {type(made.metrics_request_total)}, counted
lines = prometheus_client.generate_latest().decode().splitlines()
[total] = [one for one in lines if one.startswith("x_request_total{") and 'endpoint="/known/{id}"' in one]
assert total.endswith(" 2.0"), total
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"each request looks up four series by their labels: {done.stderr}"


def test_the_application_counts_with_the_class_that_is_replaced() -> None:
    source = " ".join(inspect.getsource(ServiceAppFactory).split())
    taken = "from bentoml._internal.server.http.instruments import ( RunnerTrafficMetricsMiddleware, )"
    assert taken in source, "every path that a stranger makes up is a series for ever"


def test_bentoml_has_no_time_limit_of_its_own() -> None:
    code = """
from clip_retrieval.serving.bento_dispatch import no_time_limit_of_bentoml
from bentoml._internal.server.base_app import BaseAppFactory
no_time_limit_of_bentoml()
class Application(BaseAppFactory):
    name = "test"
    async def index_page(self, _): ...
    mark_as_ready = None
[limit] = Application(timeout=9).middlewares
assert limit.cls("the application", *limit.args, **limit.kwargs) == "the application"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a slow upload ends with 504: {done.stderr}"


def test_bentoml_makes_no_spans_where_it_is_told_so() -> None:
    code = """
import sys
from clip_retrieval.serving.bento_dispatch import no_spans_of_bentoml
no_spans_of_bentoml()
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
assert OpenTelemetryMiddleware("the application", excluded_urls=None, tracer_provider=None) == "the application"
assert "opentelemetry.metrics" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"each request pays for spans that nobody collects: {done.stderr}"
    source = inspect.getsource(ServiceAppFactory)
    taken = "from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware"
    assert taken in source, "each request pays for spans that nobody collects"


class FakeBento:
    """What ``BentoDispatch`` reads of BentoML: an application with a route for the API of texts."""

    def __init__(self, infer: Any) -> None:
        self.dispatchers = {TEXTS: dispatcher(), IMAGES: dispatcher()}
        self.batch_infer = infer

        class Endpoint:
            pass

        endpoint: Any = Endpoint()
        endpoint.func = self.endpoint
        route: Any = Endpoint()
        route.name, route.endpoint = TEXTS, endpoint
        self.routes = [route]
        self.router: Any = Endpoint()

    def endpoint(self) -> None: ...


def attached(infer: Any) -> BentoDispatch:
    dispatch = BentoDispatch()
    dispatch.attach(FakeBento(infer), text_batches_at_once=2)
    return dispatch


def test_attaching_sets_the_queues_up() -> None:
    bento = FakeBento(None)
    dispatch = BentoDispatch()
    dispatch.attach(bento, text_batches_at_once=2)
    texts = bento.dispatchers[TEXTS]
    assert (texts._sema.sema, bento.dispatchers[IMAGES]._sema.sema) == (2, 1)
    assert (texts.optimizer.o_a, texts.optimizer.o_b, texts.optimizer.wait) == (0, 0, 0)
    assert dispatch.queue_lengths() == {TEXTS: 0, IMAGES: 0}


def test_the_queue_of_texts_is_looked_at_less_often() -> None:
    bento = FakeBento(None)
    BentoDispatch().attach(bento, text_batches_at_once=2)
    assert "sleep(self.TICKET_INTERVAL)" in inspect.getsource(CorkDispatcher.controller), "it looks each millisecond"
    assert bento.dispatchers[TEXTS].TICKET_INTERVAL == LOOK_S > CorkDispatcher.TICKET_INTERVAL
    assert bento.dispatchers[IMAGES].TICKET_INTERVAL == CorkDispatcher.TICKET_INTERVAL
    assert bento.router.redirect_slashes is False


def test_a_job_of_a_queue_that_gives_up_is_abandoned_and_busy() -> None:
    async def gives_up(*_: object) -> Sequence[Encoded]:
        raise ServiceUnavailable("the query waited too long for the encoder")

    job = EncodeJob("red")
    with pytest.raises(Busy, match="waited too long"):
        asyncio.run(attached(gives_up).submit_text(job))
    assert job.abandoned


def test_a_job_whose_request_is_cancelled_is_abandoned() -> None:
    async def scenario() -> EncodeJob:
        async def waits(*_: object) -> Sequence[Encoded]:
            await asyncio.sleep(60)
            return []

        job = EncodeJob("red")
        waiting = asyncio.create_task(attached(waits).submit_image(job))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return job

    assert asyncio.run(scenario()).abandoned


def test_a_job_that_is_cancelled_while_it_waits_ends_as_cancelled() -> None:
    async def scenario() -> None:
        texts = FakeBento(None)
        BentoDispatch().attach(texts, text_batches_at_once=1)

        async def waits() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                texts.dispatchers[TEXTS].fallback()

        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(ServiceUnavailable):
            texts.dispatchers[TEXTS].fallback()

    asyncio.run(scenario())


def test_each_job_of_a_mixed_batch_gets_what_it_wants() -> None:
    encoded: list[Any] = [object.__new__(Encoded) for _ in range(2)]
    object.__setattr__(encoded[0], "vector", "vector")
    jobs = [EncodeJob("red", vector_only=True), EncodeJob("blue"), EncodeJob("green", abandoned=True)]
    assert results_of(jobs, [*encoded, None]) == ["vector", encoded[1], None]
