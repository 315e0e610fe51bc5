"""OpenTelemetry spans of a request's stages: ``decode``, ``encode`` and ``search`` inside BentoML's request span.

BentoML owns the tracer provider, the sampling and the exporter; they are off until BentoML's ``tracing`` configuration
turns them on (docs/deploy.md). For a request that is not sampled, the only cost is the check of a flag.

The times of the stages are measured for every request. The spans are created from these times when the request is
answered. One batch serves many requests, and each request has its own trace. So each request gets an ``encode`` span
with the start and the end of the whole batch, which is how long the request waited; ``bento_clip.batch_size`` is the
number of queries in the batch. The ``encode`` spans of one batch cover the same time: do not add them up across traces.
A stage that a request did not need has no span, for example when the answer comes from the cache.
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
    """Add a child span for each stage to the current span, if the current span is sampled.

    ``stages`` and ``attributes`` are by the name of the stage.
    """
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return
    epoch_ns = time.time_ns() - time.perf_counter_ns()
    for name, stage in stages.items():
        start_ns = epoch_ns + round(stage.start * 1e9)
        span = tracer.start_span(name, start_time=start_ns, attributes=(attributes or {}).get(name))
        span.end(start_ns + round(stage.seconds * 1e9))
