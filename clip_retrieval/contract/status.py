"""The answers about the server: the model and collection that it serves, health, counts and latencies."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from clip_retrieval.contract.base import Frozen


class ServiceInfo(Frozen):
    """The model and the collection that the service serves."""

    name: str
    version: str
    model: str
    images: int
    captions: int
    artifact: str
    links: dict[str, str]
    notes: list[str] = Field(description="Notices for users, such as a search that is turned off and the reason.")


class Health(Frozen):
    """Whether the service can answer queries."""

    status: Literal["healthy", "starting"]
    timestamp: datetime
    model_loaded: bool
    indexes_loaded: bool
    uptime_seconds: float
    artifact: str | None
    version: str | None = Field(None, description="The state of the collection that answers.")
    sequence: int = Field(0, description="The number of the last change that is visible.")
    takes_changes: bool = Field(False, description="Whether images can be added, changed and removed.")
    changes: str | None = Field(None, description="Where changes are kept, or why none are taken.")


class Percentiles(Frozen):
    """Percentiles of single requests, in milliseconds, over the newest requests."""

    count: int
    p50: float
    p95: float
    p99: float


class Stats(Frozen):
    """Counts and latencies of the server process since its start."""

    uptime_seconds: float
    queries: dict[str, int] = Field(description="Number of answered requests by kind.")
    cache_hits: int
    cache_misses: int
    cache_size: int
    latency_ms: dict[str, Percentiles] = Field(
        description="By stage: `decode` of an uploaded image, `encode` of the batch that the request was in, `search`, "
        "and `total` of the request."
    )


class CacheCleared(Frozen):
    """The result cache was emptied."""

    message: str
    previous_cache_size: int
    current_cache_size: int
