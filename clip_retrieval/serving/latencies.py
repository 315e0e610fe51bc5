"""Counts and latencies of the requests that a service has answered. A worker records its own and reads those of all."""

from collections.abc import Mapping

import numpy as np

from clip_retrieval.contract.status import Percentiles, Stats
from clip_retrieval.serving.shared_state import KINDS, PLACE, Kind, SharedState, Slot
from clip_retrieval.stages import STAGES

_QUERIES = {kind: PLACE[f"queries_{kind}"] for kind in KINDS}


class Recorder:
    """Collects the latency of each stage of each request, so percentiles are over single requests."""

    def __init__(self, shared: SharedState | None = None, slot: Slot | None = None) -> None:
        """``slot`` is the worker's own in ``shared``."""
        self._shared = shared or SharedState.alone()
        slot = slot or self._shared.slots[0]
        self._cells = slot.cells
        self._stages = {stage: (slot.rings[stage], PLACE[f"recorded_{stage}"]) for stage in STAGES}
        self._window = len(slot.rings["total"])

    @property
    def uptime_s(self) -> float:
        """Seconds since the start of the service."""
        return self._shared.uptime_s

    def add(self, kind: Kind, stages_s: Mapping[str, float]) -> None:
        """Count one answered request; ``stages_s`` holds the seconds of each stage that the request needed."""
        cells, stages, window = self._cells, self._stages, self._window
        cells[_QUERIES[kind]] += 1
        for stage, seconds in stages_s.items():
            ring, place = stages[stage]
            number = cells[place]
            ring[number % window] = seconds
            cells[place] = number + 1

    def snapshot(self) -> Stats:
        """Counts and percentiles so far, of the caches too: of all workers together."""
        shared = self._shared
        counts = {kind: shared.total(f"queries_{kind}") for kind in KINDS}
        seconds = {stage: np.concatenate([slot.seconds(stage) for slot in shared.slots]) for stage in STAGES}
        return Stats(
            uptime_seconds=shared.uptime_s,
            queries={kind: count for kind, count in counts.items() if count},
            cache_hits=shared.total("cache_hits"),
            cache_misses=shared.total("cache_misses"),
            cache_size=shared.cache_size(),
            latency_ms={stage: _percentiles(values * 1e3) for stage, values in seconds.items() if len(values)},
        )


def _percentiles(values_ms: np.ndarray) -> Percentiles:
    p50, p95, p99 = np.percentile(values_ms, [50, 95, 99]).tolist()
    return Percentiles(count=len(values_ms), p50=p50, p95=p95, p99=p99)
