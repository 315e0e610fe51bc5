"""The stages of an answered request, and when each of them was."""

from typing import NamedTuple

STAGES = ("decode", "encode", "search", "total")
"""In the order in which a request goes through them; ``total`` is the whole request."""


class Stage(NamedTuple):
    """When a stage began, on the clock of ``time.perf_counter``, and how long it took, in seconds."""

    start: float
    seconds: float
