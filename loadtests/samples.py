"""One sample a request, exact: what kind, how it ended, what the client waited and what the service's stages took.

Locust keeps response times as whole milliseconds with two significant digits, which cannot tell 0.2 from 0.9 ms. So
every request is packed as it is into 30 bytes and percentiles are taken from those, by ``summary.py``.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus

STAGES = ("decode", "encode", "search", "total")
"""The stages of the service's ``Server-Timing``; ``total`` is what the service itself took for the request."""

TURNED_AWAY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

PACKED = struct.Struct("<dBB5f")
"""When it ended, kind, outcome, response, and the stages; see ``pack``."""
SAMPLES_FILE = "samples.bin"


class Kind(IntEnum):
    """What was asked, in the service's own words; ``bad`` is input that must be refused."""

    search_images = 0
    search_text = 1
    search_similar = 2
    encode_text = 3
    encode_image = 4
    bad = 5


class Outcome(IntEnum):
    """How a request ended. ``refused``: bad input got the right 4xx. ``turned_away``: 429 or 503 with Retry-After."""

    answered = 0
    cached = 1
    refused = 2
    turned_away = 3
    failed = 4


@dataclass(frozen=True, slots=True)
class Timing:
    """A ``Server-Timing`` header: durations in milliseconds and descriptions, by metric."""

    durations: Mapping[str, float] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def cached(self) -> bool:
        return self.descriptions.get("cache") == "hit"

    def stage(self, name: str) -> float:
        """Milliseconds of a stage; NaN if it did not happen, which the service also writes as 0.000."""
        return self.durations.get(name, 0.0) or math.nan


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_METRIC = re.compile(rf"[\s,]*({_TOKEN})((?:\s*;\s*{_TOKEN}(?:\s*=\s*{_VALUE})?)*)\s*(?=,|$)")
_PARAMETER = re.compile(rf";\s*({_TOKEN})\s*=\s*({_VALUE})")


def parse_server_timing(header: str) -> Timing:
    """Read a header as https://www.w3.org/TR/server-timing/ defines it. Of equal names the first counts.

    Never raises: reading ends at what cannot be read, and a ``dur`` that is no number is as good as none.
    """
    durations: dict[str, float] = {}
    descriptions: dict[str, str] = {}
    position = 0
    while match := _METRIC.match(header, position):
        position = match.end()
        name, parameters = match.groups()
        for key, quoted in _PARAMETER.findall(parameters):
            value = re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted.startswith('"') else quoted
            if key == "desc":
                descriptions.setdefault(name, value)
            elif key == "dur" and (number := _number(value)) is not None:
                durations.setdefault(name, number)
    return Timing(durations, descriptions)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def outcome_of(status: int, *, retry_after: bool, cached: bool, expected: int = HTTPStatus.OK) -> Outcome:
    """How a request ended that had to be answered with the status ``expected``; ``status`` is 0 without an answer."""
    if status in TURNED_AWAY and retry_after:
        return Outcome.turned_away
    if status != expected:
        return Outcome.failed
    if status >= HTTPStatus.BAD_REQUEST:
        return Outcome.refused
    return Outcome.cached if cached else Outcome.answered


def pack(at: float, kind: Kind, outcome: Outcome, response_ms: float, timing: Timing) -> bytes:
    """A sample of a request that ended ``at`` seconds since the epoch; only one that was answered afresh has stages."""
    stages = (timing.stage(name) if outcome is Outcome.answered else math.nan for name in STAGES)
    return PACKED.pack(at, kind, outcome, response_ms, *stages)
