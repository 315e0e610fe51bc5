"""What the API says of the server: what is served, health, counts and latencies."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from clip_retrieval.contract.base import Frozen


class ServiceInfo(Frozen):
    """What is served here."""

    name: str
    version: str
    model: str
    images: int
    captions: int
    artifact: str
    links: dict[str, str]
    notes: list[str] = Field(description="What a user should know, such as a search that is off and why.")


class Health(Frozen):
    """Whether queries can be answered."""

    status: Literal["healthy", "starting"]
    timestamp: datetime
    model_loaded: bool
    indexes_loaded: bool
    uptime_seconds: float
    artifact: str | None


class Percentiles(Frozen):
    """Percentiles of single requests, in milliseconds, over the newest ones."""

    count: int
    p50: float
    p95: float
    p99: float


class Stats(Frozen):
    """What has been served since the start."""

    uptime_seconds: float
    queries: dict[str, int] = Field(description="Answered requests by kind.")
    cache_hits: int
    cache_misses: int
    cache_size: int
    latency_ms: dict[str, Percentiles] = Field(
        description="By stage: `encode` and `search` of the batch that served the request, `total` of the request."
    )


class CacheCleared(Frozen):
    """The result cache is empty now."""

    message: str
    previous_cache_size: int
    current_cache_size: int
