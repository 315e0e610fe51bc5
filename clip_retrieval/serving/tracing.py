"""OpenTelemetry spans of a request's stages: ``decode``, ``encode`` and ``search`` inside BentoML's request span.

BentoML owns the tracer provider, its sampling and its exporter; they are off until its ``tracing`` configuration turns
them on (docs/deploy.md). While a request is not sampled, its stages cost one look at a flag.

Stages are measured anyway, so their spans are made when the request is answered, with the times that were measured.
A batch is encoded once for many requests, each of which has its own trace: every one of them gets an ``encode`` span
with the start and the end of the whole batch, because that is how long it waited, and ``bento_clip.batch_size`` says
with how many queries it shared that time. Spans of one batch are equal in their times, so they must not be added up
across traces. A stage that a request did not go through, as in an answer from the cache, has no span.
"""

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from clip_retrieval.stages import Stage


def record_stages(
    tracer: trace.Tracer,
    stages: Mapping[str, Stage],
    attributes: Mapping[str, Mapping[str, AttributeValue]] | None = None,
) -> None:
    """Add a span for each stage to the current span if that is sampled; ``attributes`` are by stage."""
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return
    epoch_ns = time.time_ns() - time.perf_counter_ns()
    for name, stage in stages.items():
        start_ns = epoch_ns + round(stage.start * 1e9)
        span = tracer.start_span(name, start_time=start_ns, attributes=(attributes or {}).get(name))
        span.end(start_ns + round(stage.seconds * 1e9))
