"""The answers about the server: the model and collection that it serves, health, counts and latencies."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from clip_retrieval.contract.base import DEFAULT_MIN_CONFIDENCE, Bool, Frozen, Strict
from clip_retrieval.records import Mode, Way


class ServiceInfo(Frozen):
    """The model and the collection that the service serves."""

    name: str
    version: str
    model: str
    images: int
    captions: int
    artifact: str
    links: dict[str, str]
    confident_ways: list[Literal["text_to_image", "image_to_text"]] = Field(
        default=[],
        description="The searches whose results have a `confidence`, so that `min_confidence` can be asked for.",
    )
    min_confidence: float | None = Field(
        None,
        description="The `min_confidence` that the collection chose: the highest that costs its own captions no more "
        f"than 0.02 of recall@10, or {DEFAULT_MIN_CONFIDENCE} where an earlier release built it. Searches ask for none "
        "by themselves. Null where nothing has a `confidence`.",
    )
    modes: list[Mode] = Field(default=["vector"], description="What `mode` of a search may be with this artifact.")
    notes: list[str] = Field(description="Notices for users, such as a search that is turned off and the reason.")

    def bound(self, way: Way | None) -> float | None:
        """The least confidence of what is near enough, for a search that goes ``way``; None if it has no confidence.

        An earlier release does not say it.
        """
        if way not in self.confident_ways:
            return None
        return DEFAULT_MIN_CONFIDENCE if self.min_confidence is None else self.min_confidence


class Health(Frozen):
    """Whether the service can answer queries."""

    status: Literal["healthy", "failing", "starting"] = Field(
        description="`failing`: the encoder of a worker fails or does not end, or the engine of the index does not "
        "answer; `/readyz` is 503 then."
    )
    timestamp: datetime
    model_loaded: bool
    indexes_loaded: bool
    uptime_seconds: float
    artifact: str | None
    version: str | None = Field(None, description="The state of the collection that answers.")
    sequence: int = Field(0, description="The number of the last change that is visible.")
    index: str | None = Field(
        None,
        description="What is wrong with the engine of the index, where that is not in the service; null if nothing.",
    )
    encoder: str | None = Field(
        None,
        description="What is wrong with the service that encodes, where that is another one; null if nothing. "
        "Meanwhile what needs no new vector is answered, and `/readyz` stays 200.",
    )
    takes_changes: bool = Field(False, description="Whether images can be added, changed and removed.")
    may_change: bool = Field(
        False, description="Whether the one who asks may do so: changes are taken, and the key allows them."
    )
    changes: str | None = Field(None, description="Where changes are kept, or why none are taken.")


class Percentiles(Frozen):
    """Percentiles of single requests, in milliseconds, over the newest requests of each worker."""

    count: int
    p50: float
    p95: float
    p99: float


class Stats(Frozen):
    """Counts and latencies of the service, all its workers together, since its start."""

    uptime_seconds: float
    queries: dict[str, int] = Field(description="Number of answered requests by kind.")
    cache_hits: int
    cache_misses: int
    cache_size: int
    latency_ms: dict[str, Percentiles] = Field(
        description="By stage: `decode` of an uploaded image, `encode` of the batch that the request was in, `search`, "
        "and `total` of the request."
    )
    images_added: int = Field(default=0, description="Images that the artifact does not have, or has in another state.")
    images_removed: int = Field(default=0, description="Images of the artifact that were removed or changed since.")


class CacheCleared(Frozen):
    """The result caches of all workers were emptied."""

    message: str
    previous_cache_size: int
    current_cache_size: int


class SwapRequest(Strict):
    """Serve another artifact from now on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"artifact": "clip-retrieval:latest"}]})

    artifact: str = Field(min_length=1, max_length=1000, description="A model store tag, or the path of a folder.")
    force: Bool = Field(default=False, description="Take it also if it falls short of what its manifest promises.")


class MeasuredIndex(Frozen):
    """What the manifest of an artifact promises of one index, and what was measured before the swap."""

    modality: Literal["images", "captions"]
    promised_recall: float
    recall: float = Field(description="The least recall at 1, 10 and 50 results, against exact search.")
    promised_p99_ms: float
    p99_ms: float
    allowed_p99_ms: float = Field(
        description="Three times the promise, and as many times more as the artifact that was served is slower now "
        "than its own manifest says."
    )


class Mirrored(Frozen):
    """How the answers of two artifacts to the same queries differ."""

    queries: int
    overlap_at_10: float | None = Field(description="The mean share of the first ten results that both have.")


class ArtifactStatus(Frozen):
    """What is served, and how the latest swap stands."""

    artifact: str
    version: str
    state: Literal["serving", "swapping", "refused"] = Field(
        description="`refused`: the latest swap was refused, for the `reason`; the earlier artifact goes on."
    )
    wanted: str | None = Field(default=None, description="The artifact of the latest swap, as it was named.")
    reason: str | None = None
    previous: str | None = Field(default=None, description="The artifact before the latest swap.")
    workers: int = Field(default=1, description="The workers of this host that serve it.")
    encoder_shared: bool | None = Field(default=None, description="Whether the encoder was the same one.")
    seconds: float | None = Field(default=None, description="What the latest swap took.")
    memory_mb: dict[str, float] = Field(
        default_factory=dict, description="Resident memory of this worker `before`, `during` and `after` the swap."
    )
    measured: list[MeasuredIndex] = Field(default_factory=list)
    mirrored: Mirrored | None = Field(default=None, description="Queries that both answered, if a mirror is set.")
