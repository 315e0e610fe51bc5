"""A long load, and by how much the memory of the service grows meanwhile."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from scripts.common.machine import memory
from scripts.stress.outcome import Amounts, Outcome
from scripts.stress.place import Place, settings_of
from scripts.stress.traffic import load

MOST_MB_PER_MINUTE = 1.0
"""An hour at this rate is 60 MB. Caches fill in the first half, which is not counted."""


def soak(place: Place, tag: str, amounts: Amounts) -> Outcome:
    """Memory is level in the second half of a load of texts that nobody has asked for before."""
    minutes: list[float] = []
    resident: list[float] = []
    with (
        place.service(tag, **settings_of(workers=1, cache_size=256)) as served,
        ThreadPoolExecutor(1) as pool,
    ):
        began = time.monotonic()
        loading = pool.submit(load, served.url, 4, amounts.soak_minutes * 60)
        while not loading.done():
            minutes.append((time.monotonic() - began) / 60)
            resident.append(memory(served.pid)["rss_mb"])
            time.sleep(1)
        counts = loading.result()
    faults = [f"{counts.failed} requests failed with 5xx"] if counts.failed else []
    slope = slope_of(minutes, resident)
    if amounts.judges_speed and slope > MOST_MB_PER_MINUTE:
        faults.append(f"memory grows by {slope} MB a minute; at most {MOST_MB_PER_MINUTE} may be")
    figures: dict[str, Any] = {"minutes": amounts.soak_minutes, "answers": dict(counts.by), "mb_per_minute": slope}
    figures["resident_mb"] = round(resident[-1], 1)
    return Outcome("soak", figures, faults, amounts.unjudged("the slope"))


def slope_of(minutes: list[float], megabytes: list[float]) -> float:
    """The slope of the second half by least squares, in MB a minute. Raises ValueError for fewer than four values."""
    half = len(minutes) // 2
    if len(minutes) - half < 2:
        raise ValueError("a slope needs at least four values")
    return round(float(np.polyfit(minutes[half:], megabytes[half:], 1)[0]), 3)
