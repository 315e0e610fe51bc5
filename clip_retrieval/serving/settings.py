"""Settings of the server, from environment variables with the prefix ``BENTO_CLIP_``. Importing this reads none."""

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One attribute for each setting: ``BENTO_CLIP_MAX_UPLOAD_BYTES=1000000`` sets ``max_upload_bytes``."""

    model_config = SettingsConfigDict(env_prefix="BENTO_CLIP_", frozen=True, populate_by_name=True)

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
    decode_threads: int = Field(default=2, ge=1, description="images decoded at the same time")
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
    log_format: Literal["plain", "json"] = Field(default="plain", description="the format of log lines")
