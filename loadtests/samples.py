"""One exact sample a request: its kind, how it ended, how long the client waited, how long the service's stages took.

Locust keeps response times as whole milliseconds with two significant digits, so 0.2 ms and 0.9 ms look the same. So
every request is packed into 30 bytes, and ``summary.py`` takes the percentiles from those.
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

REJECTED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

PACKED = struct.Struct("<dBB5f")
"""When it ended, kind, outcome, response, and the stages; see ``pack``."""
SAMPLES_FILE = "samples.bin"


class Kind(IntEnum):
    """What was asked: a route of the service, or ``bad`` for input that must be refused. Files keep the numbers."""

    search_images = 0
    search_text = 1
    search_similar = 2
    encode_text = 3
    encode_image = 4
    bad = 5
    search = 6


class Outcome(IntEnum):
    """How a request ended.

    ``refused``: bad input got the 4xx that is right. ``rejected``: the service was overloaded, 429 or 503 with
    Retry-After. ``failed``: any other status, or an answer that the schema does not allow.
    """

    answered = 0
    cached = 1
    refused = 2
    rejected = 3
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

    Never raises: reading ends at the first part that cannot be read, and a ``dur`` that is not a number is ignored.
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
    """How a request ended whose right status is ``expected``; ``status`` is 0 if there was no answer."""
    if status in REJECTED and retry_after:
        return Outcome.rejected
    if status != expected:
        return Outcome.failed
    if status >= HTTPStatus.BAD_REQUEST:
        return Outcome.refused
    return Outcome.cached if cached else Outcome.answered


def pack(at: float, kind: Kind, outcome: Outcome, response_ms: float, timing: Timing) -> bytes:
    """A sample of a request that ended ``at`` seconds since the epoch, ``PACKED.size`` bytes.

    Only an answer that did not come from the cache has stages.
    """
    stages = (timing.stage(name) if outcome is Outcome.answered else math.nan for name in STAGES)
    return PACKED.pack(at, kind, outcome, response_ms, *stages)
