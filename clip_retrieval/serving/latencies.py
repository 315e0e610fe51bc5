"""Counts and latencies of the requests that one server process has answered. For use in its event loop only."""

import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

from clip_retrieval.contract.status import Percentiles, Stats
from clip_retrieval.serving.cache import AnswerCache
from clip_retrieval.stages import STAGES

WINDOW_REQUESTS = 10_000
"""The percentiles cover this many of the newest requests."""


class Recorder:
    """Collects the latency of each stage of each request, so percentiles are over single requests."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._latencies: dict[str, deque[float]] = {stage: deque(maxlen=WINDOW_REQUESTS) for stage in STAGES}
        self.queries: Counter[str] = Counter()

    @property
    def uptime_s(self) -> float:
        """Seconds since the start of the process."""
        return time.monotonic() - self._start

    def add(self, kind: str, stages_s: Mapping[str, float]) -> None:
        """Count one answered request; ``stages_s`` holds the seconds of each stage that the request needed."""
        self.queries[kind] += 1
        for stage, seconds in stages_s.items():
            self._latencies[stage].append(seconds)

    def snapshot(self, cache: AnswerCache) -> Stats:
        """Counts and percentiles so far, of the cache too."""
        return Stats(
            uptime_seconds=self.uptime_s,
            queries=dict(self.queries),
            cache_hits=cache.hits,
            cache_misses=cache.misses,
            cache_size=len(cache),
            latency_ms={
                stage: _percentiles(np.array(values) * 1e3) for stage, values in self._latencies.items() if values
            },
        )


def _percentiles(values_ms: np.ndarray) -> Percentiles:
    p50, p95, p99 = np.percentile(values_ms, [50, 95, 99]).tolist()
    return Percentiles(count=len(values_ms), p50=p50, p95=p95, p99=p99)
