"""Settings of the server, from environment variables with the prefix ``BENTO_CLIP_``. Importing this reads none."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "BENTO_CLIP_"


class Settings(BaseSettings):
    """One attribute for each setting: ``BENTO_CLIP_MAX_UPLOAD_BYTES=1000000`` sets ``max_upload_bytes``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, populate_by_name=True)

    artifact: str = Field(
        default="clip-retrieval:latest", description="BentoML model tag, or the path of an artifact folder"
    )
    max_batch_size: int = Field(default=32, ge=2, le=512, description="largest number of queries encoded together")
    max_pending: int = Field(default=128, ge=1, description="largest number of requests in progress; more get 503")
    max_pending_images: int = Field(
        default=32,
        ge=1,
        description="largest number of these that bring images; more get 503",
        validation_alias=AliasChoices("BENTO_CLIP_MAX_PENDING_IMAGES", "BENTO_CLIP_MAX_PENDING_PICTURES"),
    )
    """Releases before 0.2 used the second name."""
    request_timeout_s: int = Field(default=30, ge=1, description="a request that takes longer gets 504")
    max_upload_bytes: int = Field(
        default=10 * 2**20, ge=1024, description="largest request body in bytes; a larger one gets 413"
    )
    max_pixels: int = Field(default=50_000_000, ge=1, description="most pixels of an image; a larger image gets 422")
    decode_threads: int = Field(
        default=2, ge=1, description="images decoded at the same time, each in a process of its own"
    )
    decode_timeout_s: int = Field(
        default=10, ge=1, description="seconds of processor time that decoding an image may take; more gets 422"
    )
    memory_limit_bytes: int | None = Field(
        default=None,
        ge=2**27,
        description="memory that the service may take; default: what its control group, or the machine, allows",
    )
    cache_size: int = Field(default=4096, ge=0, description="results kept, and query vectors; 0 turns both caches off")
    cache_ttl_s: float = Field(default=3600, gt=0, description="seconds for which a result is kept")
    workers: int | None = Field(
        default=None, ge=1, description="server processes, each with its own encoder; default: one for every 8 cores"
    )
    encoder_threads: int | None = Field(
        default=None, ge=1, description="threads of each worker's encoder; default: the cores divided by the workers"
    )
    access_log: bool = Field(default=True, description="whether each request is logged")
    traces: bool = Field(
        default=False, description="whether spans are recorded; BentoML's configuration says where they are sent"
    )
    precision: Literal["auto", "f32", "int8"] | None = Field(
        default=None,
        description="precision of the encoder; default: int8 for an artifact built with int8, otherwise auto",
    )
    follow: str | None = Field(
        default=None,
        description="a model store tag, such as clip-retrieval:latest: whenever it names another artifact, that one is "
        "served",
    )
    mirror: float = Field(
        default=0, ge=0, le=1, description="share of the queries that both artifacts answer before one takes over"
    )
    changes: Path | None = Field(
        default=None,
        description="folder where changes of the collection are kept; without it the collection is frozen",
    )

    @field_validator("changes", "follow", mode="before")
    @classmethod
    def _empty_is_none(cls, given: object) -> object:
        """As compose files and charts set what is not set; no working folder and no nameless tag is meant."""
        return given or None

    max_added: int = Field(
        default=20_000, ge=1, description="most images that are added or changed before a compaction; more get 429"
    )
    compact_at: int = Field(
        default=10_000,
        ge=0,
        description="changed and removed images after which a new artifact is made of the collection and its changes; "
        "0 never does",
    )
    log_format: Literal["plain", "json"] = Field(default="plain", description="the format of log lines")


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable with our prefix that is no setting, in order of name.

    Kubernetes sets such variables itself for a Service that is named ``bento-clip``; these are passed over.
    """
    known = {name.upper() for name in Settings.model_fields}
    linked = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT") if f"{PREFIX}SERVICE_HOST" in environment else ()
    sentences = []
    for name in sorted(environment):
        short = name.upper().removeprefix(PREFIX)
        if short == name.upper() or short in {*known, "MAX_PENDING_PICTURES"} or name.startswith(linked):
            continue
        near = get_close_matches(short, known, n=1)
        meant = (
            f"did you mean {PREFIX}{near[0]}?" if near else f"after {PREFIX} comes one of {', '.join(sorted(known))}"
        )
        sentences.append(f"{name} is no setting and has no effect; {meant}")
    return sentences
