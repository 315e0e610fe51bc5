"""PrometheusMetrics: what Prometheus sees after a reading, in one process and over several lives of a worker."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.http.middleware.beforehand import Beforehand
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.serving.prometheus import PrometheusMetrics, Reading, forget_process, resident_memory
from clip_retrieval.serving.shared_state import SharedState

READING = Reading(
    pending=3,
    rejected=Counter(too_many=2),
    queued={"encode_texts": 5, "encode_images": 0},
    cache_size=7,
    cache_hits=10,
    cache_misses=20,
    replica={"hits": 4, "misses": 3, "timeouts": 2, "away": 1},
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> PrometheusMetrics:
    return PrometheusMetrics(registry)


def test_gauges_are_the_newest_reading(metrics: PrometheusMetrics, registry: CollectorRegistry) -> None:
    metrics.take(READING, {"worker": 100})
    metrics.take(replace(READING, pending=1, cache_size=8, queued={"encode_texts": 0}), {"worker": 90})
    assert registry.get_sample_value("bento_clip_requests_pending") == 1
    assert registry.get_sample_value("bento_clip_cache_size") == 8
    assert registry.get_sample_value("bento_clip_queue_length", {"api": "encode_texts"}) == 0
    assert registry.get_sample_value("bento_clip_memory_bytes", {"process": "worker"}) == 90


def test_counters_are_the_counts_since_the_start_however_often_they_are_read(
    metrics: PrometheusMetrics, registry: CollectorRegistry
) -> None:
    for reading in (READING, READING, replace(READING, cache_hits=11, rejected=Counter(too_many=2, too_slow=1))):
        metrics.take(reading, {})
    lookups = "bento_clip_cache_requests_total"
    assert registry.get_sample_value(lookups, {"result": "hit"}) == 11
    assert registry.get_sample_value(lookups, {"result": "miss"}) == 20
    replica = "bento_clip_replica_cache_requests_total"
    results = {"hit": 4, "miss": 3, "timeout": 2, "away": 1}
    assert {one: registry.get_sample_value(replica, {"result": one}) for one in results} == results
    refused = "bento_clip_turned_away_total"
    assert [registry.get_sample_value(refused, {"reason": r}) for r in ("too_many", "too_slow", "too_large")] == [
        2,
        1,
        0,
    ]


def test_what_never_happened_is_zero_and_not_absent(metrics: PrometheusMetrics, registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("bento_clip_turned_away_total", {"reason": "too_large"}) == 0
    assert registry.get_sample_value("bento_clip_cache_requests_total", {"result": "hit"}) == 0
    assert registry.get_sample_value("bento_clip_stage_seconds_count", {"stage": "decode"}) == 0


def test_what_is_served_is_described(
    metrics: PrometheusMetrics, registry: CollectorRegistry, fake_artifact: Artifact
) -> None:
    metrics.describe("clip-retrieval:abc", fake_artifact.manifest)
    labels = {"artifact": "clip-retrieval:abc", "model": "fake", "data": "squares"}
    assert registry.get_sample_value("bento_clip_artifact_info", labels) == 1
    assert registry.get_sample_value("bento_clip_index_rows", {"modality": "images", "factory": "Flat"}) == 24
    assert registry.get_sample_value("bento_clip_index_rows", {"modality": "captions", "factory": "Flat"}) == 48


def test_what_was_served_before_is_0(
    metrics: PrometheusMetrics, registry: CollectorRegistry, fake_artifact: Artifact
) -> None:
    manifest = fake_artifact.manifest
    spec = manifest.images.spec.model_copy(update={"factory": "HNSW32,Flat"})
    graph = manifest.model_copy(update={"images": manifest.images.model_copy(update={"spec": spec})})
    for tag, served in (("old", manifest), ("new", graph), ("new", graph)):
        metrics.describe(tag, served)

    def rows(modality: str, factory: str) -> float | None:
        return registry.get_sample_value("bento_clip_index_rows", {"modality": modality, "factory": factory})

    labels = {"model": "fake", "data": "squares"}
    found = [registry.get_sample_value("bento_clip_artifact_info", {"artifact": t, **labels}) for t in ("old", "new")]
    assert found == [0, 1]
    assert [rows("images", "Flat"), rows("images", "HNSW32,Flat"), rows("captions", "Flat")] == [0, 24, 48]


def test_stages_go_into_their_histogram(metrics: PrometheusMetrics, registry: CollectorRegistry) -> None:
    metrics.observe("search", 0.0004)
    assert registry.get_sample_value("bento_clip_stage_seconds_bucket", {"stage": "search", "le": "0.0005"}) == 1
    assert registry.get_sample_value("bento_clip_stage_seconds_bucket", {"stage": "search", "le": "0.00025"}) == 0


LIFE = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from clip_retrieval.serving.prometheus import PrometheusMetrics
from tests.serving.test_prometheus import READING
PrometheusMetrics().take(READING, {"worker": 100})
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_a_worker_that_took_another_s_place_replaces_its_gauges_and_adds_to_its_counters(tmp_path: Path) -> None:
    """BentoML keeps the files of a worker that died without a word; a sum over them would count it for ever."""
    for _ in range(2):
        life = subprocess.run(
            [sys.executable, "-c", LIFE],
            cwd=Path(__file__).parents[2],
            env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "\nbento_clip_requests_pending 3.0\n" in life.stdout
    assert '\nbento_clip_memory_bytes{process="worker"} 100.0\n' in life.stdout
    assert '\nbento_clip_cache_requests_total{result="hit"} 20.0\n' in life.stdout


def test_the_worker_that_is_asked_exports_the_sum_over_all_and_nothing_twice() -> None:
    """Each worker has a registry of its own; what is exported is the sum of their counters and the newest gauge."""
    shared = SharedState.create(slots=2)
    registries = CollectorRegistry(), CollectorRegistry()
    workers = [PrometheusMetrics(registry, shared.exported) for registry in registries]
    for slot in shared.slots:
        slot["pid"] = os.getpid()

    def counted(result: str) -> float:
        values = [one.get_sample_value("bento_clip_cache_requests_total", {"result": result}) for one in registries]
        return sum(value or 0 for value in values)

    first, second = shared.slots
    first["cache_hits"], second["cache_hits"], second["rejected_too_many"] = 3, 4, 1
    first["pending"], second["pending"] = 2, 5
    first["queued_encode_texts"], second["queued_encode_texts"] = 1, 1
    for turn in (0, 1, 1, 0):
        workers[turn].take(Reading.of(shared), {})
        assert counted("hit") == 7
        assert registries[turn].get_sample_value("bento_clip_requests_pending") == 7
        assert registries[turn].get_sample_value("bento_clip_queue_length", {"api": "encode_texts"}) == 2
    second["cache_hits"] += 1
    workers[0].take(Reading.of(shared), {})
    assert counted("hit") == 8


def test_a_reading_counts_look_ups_of_a_cache_that_is_empty_now() -> None:
    shared = SharedState.alone()
    AnswerCache(10, 60, shared.slots[0]).get("version", "red")
    reading = Reading.of(shared)
    assert (reading.cache_hits, reading.cache_misses, reading.cache_size) == (0, 1, 0)


def test_a_worker_that_is_gone_has_no_gauges_and_keeps_its_counts() -> None:
    shared = SharedState.create(slots=2)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    shared.slots[0]["pid"], shared.slots[1]["pid"] = os.getpid(), gone.pid
    for slot in shared.slots:
        slot["pending"] = slot["cache_size"] = slot["cache_misses"] = 1
    reading = Reading.of(shared)
    assert (reading.pending, reading.cache_size, reading.cache_misses) == (1, 1, 2)


def test_a_hook_comes_before_the_answer_of_its_path_and_of_no_other() -> None:
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        log.append(scope["path"])

    async def unused() -> Message:
        return {}

    async def send(message: Message) -> None:
        log.append(message["type"])

    hooks = {"/metrics": lambda: log.append("refresh"), "/readyz": lambda: Response(status_code=503)}
    middleware = Beforehand(app, hooks=hooks)
    for path in ("/search/images", "/metrics", "/readyz"):
        asyncio.run(middleware({"type": "http", "path": path}, unused, send))
    assert log == ["/search/images", "refresh", "/metrics", "http.response.start", "http.response.body"]


def test_the_live_gauges_of_a_process_that_was_killed_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BentoML's own gauge of requests in progress is a sum over the files of living processes."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name in ("gauge_livesum_17.db", "gauge_livesum_18.db", "counter_17.db"):
        (tmp_path / name).touch()
    forget_process(17)
    assert {path.name for path in tmp_path.iterdir()} == {"gauge_livesum_18.db", "counter_17.db"}


@pytest.mark.parametrize("supervised", [True, False])
def test_memory_is_the_operating_system_s_own_figure(supervised: bool) -> None:
    memory = resident_memory(SharedState.alone(), supervised=supervised)
    assert memory.keys() == ({"worker", "supervisor"} if supervised else {"worker"})
    assert memory["worker"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)


def test_memory_is_of_all_workers() -> None:
    shared = SharedState.create(slots=3)
    alone = resident_memory(SharedState.alone(), supervised=False)["worker"]
    shared.slots[0]["pid"] = shared.slots[1]["pid"] = os.getpid()
    assert resident_memory(shared, supervised=False)["worker"] == pytest.approx(2 * alone, rel=0.05)
