"""The metrics for Prometheus, in addition to those that BentoML exports (requests, durations and batch sizes).

A request updates only the histograms of its stages. All other values are plain numbers that their owners count anyway;
they are copied into the metrics when ``/metrics`` is read. BentoML runs prometheus_client in multiprocess mode, where a
gauge needs a mode. ``mostrecent`` exports the value that was written last, which is right for one worker and stays
right when that worker is replaced. Import this file after ``PROMETHEUS_MULTIPROC_DIR`` is set; BentoML sets it before
it starts a worker.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.serving.traffic import REJECTIONS, Traffic
from clip_retrieval.stages import STAGES

BUCKET_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a server process at one moment; the counts are since its start."""

    pending: int
    rejected: Mapping[str, int]
    queued: Mapping[str, int]
    """Queries that wait for the encoder, by the name of the batchable API."""
    cache_size: int
    cache_hits: int
    cache_misses: int

    @classmethod
    def of(cls, traffic: Traffic, answers: AnswerCache, queued: Mapping[str, int]) -> "Reading":
        return cls(
            pending=traffic.pending,
            rejected=traffic.rejected,
            queued=queued,
            cache_size=len(answers),
            cache_hits=answers.hits,
            cache_misses=answers.misses,
        )


class PrometheusMetrics:
    """The metrics of one server process, registered in ``registry``."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"bento_clip_{name}", text, labels, registry=registry, multiprocess_mode="mostrecent")

        stages = Histogram(
            "bento_clip_stage_seconds",
            "Seconds that an answered request spent in a stage: decode, its batch's encode, its search, total.",
            ["stage"],
            buckets=BUCKET_SECONDS,
            registry=registry,
        )
        cache = Counter("bento_clip_cache_requests", "Look-ups in the result cache.", ["result"], registry=registry)
        refused = Counter("bento_clip_turned_away", "Requests that were rejected.", ["reason"], registry=registry)
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._cache = {result: cache.labels(result) for result in ("hit", "miss")}
        self._refused = {reason: refused.labels(reason) for reason in REJECTIONS}
        self._cache_size = gauge("cache_size", "Results in the cache.")
        self._pending = gauge("requests_pending", "Requests in progress, of the kinds that max_pending limits.")
        self._queue = gauge("queue_length", "Queries that wait for the encoder.", "api")
        self._memory = gauge("memory_bytes", "Resident memory of the service's processes.", "process")
        self._rows = gauge("index_rows", "Rows of an index.", "modality", "factory")
        self._artifact = gauge(
            "artifact_info", "The artifact that is served; the value is always 1.", "artifact", "model", "data"
        )
        self._seen: dict[Counter, int] = {}

    def observe(self, stage: str, seconds: float) -> None:
        """Record the time of one stage of one answered request."""
        self._stages[stage].observe(seconds)

    def describe(self, tag: str, manifest: Manifest) -> None:
        """Export the artifact that is served."""
        self._artifact.labels(tag, manifest.encoder.name, manifest.data.name).set(1)
        self._rows.labels("images", manifest.images.factory).set(manifest.images.rows)
        self._rows.labels("captions", manifest.captions.factory).set(manifest.captions.rows)

    def take(self, reading: Reading, memory: Mapping[str, int]) -> None:
        """Export a reading, and the resident memory of each process in bytes."""
        self._pending.set(reading.pending)
        self._cache_size.set(reading.cache_size)
        for api, length in reading.queued.items():
            self._queue.labels(api).set(length)
        for process, size in memory.items():
            self._memory.labels(process).set(size)
        self._count(self._cache["hit"], reading.cache_hits)
        self._count(self._cache["miss"], reading.cache_misses)
        for reason, counter in self._refused.items():
            self._count(counter, reading.rejected[reason])

    def _count(self, counter: Counter, total: int) -> None:
        counter.inc(total - self._seen.get(counter, 0))
        self._seen[counter] = total


def resident_memory(*, supervised: bool) -> dict[str, int]:
    """Resident memory in bytes: of this process (the worker), and of its parent if that is BentoML's supervisor."""
    memory = {"worker": psutil.Process().memory_info().rss}
    if supervised:
        with suppress(psutil.Error):  # the supervisor has just ended
            memory["supervisor"] = psutil.Process(os.getppid()).memory_info().rss
    return memory
