"""Spans of a request's stages: children of the request's span, with the measured times, and none unless sampled."""

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import Tracer

from clip_retrieval.http.app import create_app
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.tracing import record_stages
from clip_retrieval.stages import Stage
from tests.http.in_process import DirectDispatcher
from tests.samples import png, square


class Traces:
    """A tracer and what it exported."""

    def __init__(self, sampler: Sampler) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def traces() -> Traces:
    return Traces(ALWAYS_ON)


class Traced:
    """The HTTP API with a span around each request, as BentoML makes one."""

    def __init__(self, retriever: Retriever, traces: Traces) -> None:
        self._traces = traces
        self.state = ServerState.of(Settings())
        self.state.serve(retriever, DirectDispatcher(retriever), "clip-retrieval:test")
        self.state.tracer = traces.tracer
        self.app = create_app(self.state)

    def post(self, path: str, **options: Any) -> None:
        async def run() -> None:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
                with self._traces.tracer.start_as_current_span("request"):
                    (await http.post(path, **options)).raise_for_status()

        asyncio.run(run())


@pytest.fixture
def api(retriever: Retriever, traces: Traces) -> Iterator[Traced]:
    traced = Traced(retriever, traces)
    yield traced
    traced.state.decoders.shutdown()


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_a_stage_s_span_has_the_times_that_were_measured(traces: Traces) -> None:
    started, epoch = time.perf_counter(), time.time()
    with traces.tracer.start_as_current_span("request"):
        record_stages(traces.tracer, {"encode": Stage(started - 2, 0.5)}, {"encode": {"size": 3}})
    span = traces.spans()["encode"]
    start, end = seconds(span)
    assert start == pytest.approx(epoch - 2, abs=0.1)
    assert end - start == pytest.approx(0.5, abs=1e-6)
    assert span.attributes == {"size": 3}


def test_an_image_query_has_three_stages_one_after_another_inside_its_request(api: Traced, traces: Traces) -> None:
    api.post("/search/text", files={"file": png(square("red"))})
    spans = traces.spans()
    assert spans.keys() == {"request", "decode", "encode", "search"}
    request = spans.pop("request")
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
    begin, finish = seconds(request)
    times = [begin, *seconds(spans["decode"]), *seconds(spans["encode"]), *seconds(spans["search"]), finish]
    clocks_apart = 1e-3  # two clocks are read for a span made afterwards
    assert all(later >= earlier - clocks_apart for earlier, later in pairwise(times))
    assert spans["encode"].attributes == {"bento_clip.batch_size": 1}


@pytest.mark.parametrize(
    ("path", "options", "stages"),
    [
        ("/search/images", {"json": {"text": "red"}}, {"encode", "search"}),
        ("/encode/text", {"json": {"text": "red"}}, {"encode"}),
        ("/encode/image", {"files": {"file": png(square("red"))}}, {"decode", "encode"}),
    ],
)
def test_a_query_has_the_stages_that_it_went_through(
    api: Traced, traces: Traces, path: str, options: dict[str, Any], stages: set[str]
) -> None:
    api.post(path, **options)
    assert traces.spans().keys() == {"request", *stages}


def test_an_answer_from_the_cache_has_none(api: Traced, traces: Traces) -> None:
    api.post("/search/images", json={"text": "red"})
    traces.exporter.clear()
    api.post("/search/images", json={"text": "red"})
    assert traces.spans().keys() == {"request"}


def test_a_request_that_is_not_sampled_makes_no_span(traces: Traces) -> None:
    with Traces(ALWAYS_OFF).tracer.start_as_current_span("request"):
        record_stages(traces.tracer, {"encode": Stage(0, 1)})
    record_stages(traces.tracer, {"encode": Stage(0, 1)})
    assert traces.spans() == {}
