"""What is counted: answered requests by kind, and percentiles of single requests."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.serving.cache import AnswerCache, RenderedPage
from clip_retrieval.serving.latencies import Recorder
from clip_retrieval.serving.shared_state import Kind, SharedState


def test_nothing_served_is_nothing_counted() -> None:
    snapshot = Recorder().snapshot()
    assert (snapshot.queries, snapshot.latency_ms, snapshot.cache_hits, snapshot.cache_misses) == ({}, {}, 0, 0)
    assert snapshot.uptime_seconds >= 0


def test_requests_are_counted_by_kind() -> None:
    recorder = Recorder()
    kinds: tuple[Kind, ...] = ("search_images", "search_text", "search_images")
    for kind in kinds:
        recorder.add(kind, {"total": 0.001})
    assert recorder.snapshot().queries == {"search_images": 2, "search_text": 1}


def test_a_percentile_is_one_of_single_requests() -> None:
    # 99 requests of 1 ms and one of 1 s: a mean over batches would hide the slow one or smear it over the others.
    recorder = Recorder()
    for number in range(100):
        recorder.add("search_images", {"total": 1.0 if number == 50 else 0.001})
    total = recorder.snapshot().latency_ms["total"]
    assert total.count == 100
    assert total.p50 == total.p95 == pytest.approx(1)
    assert 1 < total.p99 < 1000


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_percentiles_are_in_milliseconds_and_bound_their_share(seconds: list[float]) -> None:
    recorder = Recorder()
    for value in seconds:
        recorder.add("search_images", {"total": value})
    total = recorder.snapshot().latency_ms["total"]
    in_ms = np.array(seconds) * 1000
    for percentile, share in ((total.p50, 0.50), (total.p95, 0.95), (total.p99, 0.99)):
        assert in_ms.min() - 1e-6 <= percentile <= in_ms.max() + 1e-6
        assert (in_ms <= percentile + 1e-6).mean() >= share - 1 / len(seconds)
        assert (in_ms >= percentile - 1e-6).mean() >= 1 - share - 1 / len(seconds)


def test_a_stage_counts_the_requests_that_went_through_it() -> None:
    recorder = Recorder()
    recorder.add("search_images", {"encode": 0.010, "search": 0.002, "total": 0.015})
    recorder.add("search_images", {"total": 0.0001})  # from the cache
    latency = recorder.snapshot().latency_ms
    assert {stage: values.count for stage, values in latency.items()} == {"encode": 1, "search": 1, "total": 2}
    assert latency["search"].p50 == pytest.approx(2)


def test_only_the_newest_requests_are_kept() -> None:
    recorder = Recorder(SharedState.create(window=10))
    for number in range(100):
        recorder.add("search_images", {"total": 5.0 if number < 90 else 0.001})
    snapshot = recorder.snapshot()
    assert snapshot.latency_ms["total"].count == 10
    assert snapshot.latency_ms["total"].p99 == pytest.approx(1)
    assert snapshot.queries == {"search_images": 100}


def test_the_cache_is_reported() -> None:
    shared = SharedState.alone()
    cache, recorder = AnswerCache(10, 60, shared.slots[0]), Recorder(shared)
    cache.keep("version", "red", RenderedPage(b"[]", 0, None, truncated=False))
    assert [cache.get("version", key) is not None for key in ("red", "blue", "red")] == [True, False, True]
    snapshot = recorder.snapshot()
    assert (snapshot.cache_hits, snapshot.cache_misses, snapshot.cache_size) == (2, 1, 1)
    cache.clear()
    snapshot = recorder.snapshot()
    assert (snapshot.cache_hits, snapshot.cache_misses, snapshot.cache_size) == (2, 1, 0), "an empty cache has a past"


def test_the_requests_of_all_workers_are_one_count_and_one_distribution() -> None:
    """A percentile of each worker's percentiles would be nobody's."""
    shared = SharedState.create(slots=2)
    busy, idle = (Recorder(shared, slot) for slot in shared.slots)
    for _ in range(99):
        busy.add("search_images", {"total": 0.001})
    idle.add("search_text", {"total": 1.0, "decode": 0.5})
    for recorder in (busy, idle):
        snapshot = recorder.snapshot()
        assert snapshot.queries == {"search_images": 99, "search_text": 1}
        total = snapshot.latency_ms["total"]
        assert total.count == 100
        assert total.p95 == pytest.approx(1)
        assert snapshot.latency_ms["decode"].count == 1


def test_the_uptime_is_that_of_the_service() -> None:
    shared = SharedState.create(slots=2)
    time.sleep(0.02)
    assert 0.02 <= Recorder(shared, shared.slots[1]).snapshot().uptime_seconds < 5
