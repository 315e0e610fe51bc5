"""Swaps what is served for another artifact and back, again and again, while a load runs."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from clip_retrieval.client import Client
from clip_retrieval.errors import ServiceError

SWAP_TIMEOUT_S = 300.0
"""A new version is loaded and measured first, beside the load."""


class Swaps(BaseModel):
    """How the swaps of a run went."""

    wanted: int
    made: int = 0
    p50_s: float | None = None
    """The median of a swap, in seconds, from the request to the last worker that serves the new version."""
    max_s: float | None = None
    error: str | None = None
    """Why the first swap that failed did; none is tried after it."""


@contextmanager
def swapping(url: str, other: str, wanted: int) -> Iterator[Swaps]:
    """Swap at ``url`` to the artifact ``other`` and back, ``wanted`` times or to the end of the block.

    The last swap that has begun is waited for; then the numbers are complete.
    """
    swaps = Swaps(wanted=wanted)
    stop = threading.Event()
    thread = threading.Thread(target=_swap, args=(url, other, swaps, stop), name="swaps")
    thread.start()
    try:
        yield swaps
    finally:
        stop.set()
        thread.join()


def _swap(url: str, other: str, swaps: Swaps, stop: threading.Event) -> None:
    seconds: list[float] = []
    try:
        with Client(url, timeout=SWAP_TIMEOUT_S) as client:
            first = client.info().artifact
            while swaps.made < swaps.wanted and not stop.is_set():
                start = time.monotonic()
                client.swap(first if swaps.made % 2 else other)
                seconds.append(time.monotonic() - start)
                swaps.made += 1
    except ServiceError as error:
        swaps.error = str(error)
    if seconds:
        swaps.p50_s, swaps.max_s = round(statistics.median(seconds), 3), round(max(seconds), 3)
