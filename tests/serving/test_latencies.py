"""What is counted: answered requests by kind, and percentiles of single requests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.serving import latencies as stats
from clip_retrieval.serving.cache import AnswerCache, RenderedPage
from clip_retrieval.serving.latencies import Recorder

EMPTY = AnswerCache(10, ttl_s=60)


def test_nothing_served_is_nothing_counted() -> None:
    snapshot = Recorder().snapshot(EMPTY)
    assert (snapshot.queries, snapshot.latency_ms, snapshot.cache_hits, snapshot.cache_misses) == ({}, {}, 0, 0)
    assert snapshot.uptime_seconds >= 0


def test_requests_are_counted_by_kind() -> None:
    recorder = Recorder()
    for kind in ("search_images", "search_text", "search_images"):
        recorder.add(kind, {"total": 0.001})
    assert recorder.snapshot(EMPTY).queries == {"search_images": 2, "search_text": 1}


def test_a_percentile_is_one_of_single_requests() -> None:
    # 99 requests of 1 ms and one of 1 s: a mean over batches would hide the slow one or smear it over the others.
    recorder = Recorder()
    for number in range(100):
        recorder.add("search_images", {"total": 1.0 if number == 50 else 0.001})
    total = recorder.snapshot(EMPTY).latency_ms["total"]
    assert total.count == 100
    assert total.p50 == total.p95 == pytest.approx(1)
    assert 1 < total.p99 < 1000


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_percentiles_are_in_milliseconds_and_bound_their_share(seconds: list[float]) -> None:
    recorder = Recorder()
    for value in seconds:
        recorder.add("search_images", {"total": value})
    total = recorder.snapshot(EMPTY).latency_ms["total"]
    in_ms = np.array(seconds) * 1000
    for percentile, share in ((total.p50, 0.50), (total.p95, 0.95), (total.p99, 0.99)):
        assert in_ms.min() - 1e-6 <= percentile <= in_ms.max() + 1e-6
        assert (in_ms <= percentile + 1e-6).mean() >= share - 1 / len(seconds)
        assert (in_ms >= percentile - 1e-6).mean() >= 1 - share - 1 / len(seconds)


def test_a_stage_counts_the_requests_that_went_through_it() -> None:
    recorder = Recorder()
    recorder.add("search_images", {"encode": 0.010, "search": 0.002, "total": 0.015})
    recorder.add("search_images", {"total": 0.0001})  # from the cache
    latency = recorder.snapshot(EMPTY).latency_ms
    assert {stage: values.count for stage, values in latency.items()} == {"encode": 1, "search": 1, "total": 2}
    assert latency["search"].p50 == pytest.approx(2)


def test_only_the_newest_requests_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "WINDOW_REQUESTS", 10)
    recorder = Recorder()
    for number in range(100):
        recorder.add("search_images", {"total": 5.0 if number < 90 else 0.001})
    snapshot = recorder.snapshot(EMPTY)
    assert snapshot.latency_ms["total"].count == 10
    assert snapshot.latency_ms["total"].p99 == pytest.approx(1)
    assert snapshot.queries == {"search_images": 100}


def test_the_cache_is_reported() -> None:
    cache = AnswerCache(10, ttl_s=60)
    cache.keep("version", "red", RenderedPage(b"[]", 0, None, truncated=False))
    assert [cache.get("version", key) is not None for key in ("red", "blue", "red")] == [True, False, True]
    snapshot = Recorder().snapshot(cache)
    assert (snapshot.cache_hits, snapshot.cache_misses, snapshot.cache_size) == (2, 1, 1)
    cache.clear()
    snapshot = Recorder().snapshot(cache)
    assert (snapshot.cache_hits, snapshot.cache_misses, snapshot.cache_size) == (2, 1, 0), "an empty cache has a past"
