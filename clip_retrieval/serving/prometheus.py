"""The metrics for Prometheus, in addition to those that BentoML exports (requests, durations and batch sizes).

A request updates only the histograms of its stages. All other values are plain numbers that their owners count anyway;
they are copied into the metrics when ``/metrics`` is read, by the worker that is asked, for all workers. BentoML runs
prometheus_client in multiprocess mode, where what is exported is the sum of the counters of all processes, and where a
gauge needs a mode. ``mostrecent`` exports the value that was written last: the sum that was just made. Import this file
after ``PROMETHEUS_MULTIPROC_DIR`` is set; BentoML sets it before it starts a worker.
"""

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.serving.shared_state import QUEUES, REJECTIONS, REPLICA_RESULTS, SharedState
from clip_retrieval.stages import STAGES

BUCKET_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a service at one moment; the counts are since its start."""

    pending: int
    rejected: Mapping[str, int]
    queued: Mapping[str, int]
    """Queries that wait for the encoder, by the name of the batchable API."""
    cache_size: int
    cache_hits: int
    cache_misses: int
    replica: Mapping[str, int] = field(default_factory=dict)
    """Look-ups in the cache that replicas share, by their result; empty where there is none."""

    @classmethod
    def of(cls, shared: SharedState) -> "Reading":
        """Of all workers together."""
        return cls(
            pending=shared.now("pending"),
            rejected={reason: shared.total(f"rejected_{reason}") for reason in REJECTIONS},
            queued={queue: shared.now(f"queued_{queue}") for queue in QUEUES},
            cache_size=shared.cache_size(),
            cache_hits=shared.total("cache_hits"),
            cache_misses=shared.total("cache_misses"),
            replica={result: shared.total(f"replica_{result}") for result in REPLICA_RESULTS},
        )


class Counts(Protocol):
    """Numbers by name, 0 where nothing was set."""

    def __getitem__(self, name: str, /) -> int: ...

    def __setitem__(self, name: str, value: int, /) -> None: ...


class PrometheusMetrics:
    """The metrics of one server process, registered in ``registry``."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, exported: Counts | None = None) -> None:
        """``exported`` holds what the counters of all processes together have; each process adds what is missing."""

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
        replica = Counter(
            "bento_clip_replica_cache_requests",
            "Look-ups in the cache that replicas share; a timeout took too long, away is no answer.",
            ["result"],
            registry=registry,
        )
        refused = Counter("bento_clip_turned_away", "Requests that were rejected.", ["reason"], registry=registry)
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._cache = {result: cache.labels(result) for result in ("hit", "miss")}
        names = {"hits": "hit", "misses": "miss", "timeouts": "timeout", "away": "away"}
        self._replica = {result: replica.labels(names[result]) for result in REPLICA_RESULTS}
        self._refused = {reason: refused.labels(reason) for reason in REJECTIONS}
        self._cache_size = gauge("cache_size", "Results in the cache.")
        self._pending = gauge("requests_pending", "Requests in progress, of the kinds that max_pending limits.")
        self._queue = gauge("queue_length", "Queries that wait for the encoder.", "api")
        self._memory = gauge("memory_bytes", "Resident memory of the service's processes.", "process")
        self._rows = gauge("index_rows", "Rows of an index.", "modality", "factory")
        self._artifact = gauge(
            "artifact_info",
            "1: the artifact that is served; 0: one that was served before.",
            "artifact",
            "model",
            "data",
        )
        self._described: dict[Gauge, float] = {}
        self._exported: Counts = defaultdict(int) if exported is None else exported

    def observe(self, stage: str, seconds: float) -> None:
        """Record the time of one stage of one answered request."""
        self._stages[stage].observe(seconds)

    def describe(self, tag: str, manifest: Manifest) -> None:
        """Export the artifact that is served; what was served before is 0, since no series can be taken back."""
        described: dict[Gauge, float] = {
            self._artifact.labels(tag, manifest.encoder.name, manifest.data.name): 1,
            self._rows.labels("images", manifest.images.factory): manifest.images.rows,
            self._rows.labels("captions", manifest.captions.factory): manifest.captions.rows,
        }
        for gauge, value in (dict.fromkeys(self._described, 0) | described).items():
            gauge.set(value)
        self._described = described

    def take(self, reading: Reading, memory: Mapping[str, int]) -> None:
        """Export a reading, and the resident memory of each process in bytes."""
        self._pending.set(reading.pending)
        self._cache_size.set(reading.cache_size)
        for api, length in reading.queued.items():
            self._queue.labels(api).set(length)
        for process, size in memory.items():
            self._memory.labels(process).set(size)
        self._count("cache_hits", self._cache["hit"], reading.cache_hits)
        self._count("cache_misses", self._cache["miss"], reading.cache_misses)
        for result, total in reading.replica.items():
            self._count(f"replica_{result}", self._replica[result], total)
        for reason, counter in self._refused.items():
            self._count(f"rejected_{reason}", counter, reading.rejected[reason])

    def _count(self, name: str, counter: Counter, total: int) -> None:
        counter.inc(total - self._exported[name])
        self._exported[name] = total


def forget_process(pid: int) -> None:
    """Drop the gauges of a process that died without a word, which are sums over the processes that live.

    BentoML drops them when a process ends in good order.
    """
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


def resident_memory(shared: SharedState, *, supervised: bool) -> dict[str, int]:
    """Resident memory in bytes: of all workers, and of this process's parent if that is BentoML's supervisor."""
    memory = {"worker": sum(_resident(slot["pid"]) for slot in shared.slots if slot["pid"])}
    if supervised:
        memory["supervisor"] = _resident(os.getppid())
    return memory


def _resident(pid: int) -> int:
    with suppress(psutil.Error):  # it has just ended
        return psutil.Process(pid).memory_info().rss
    return 0
