"""Settings of the server, from the environment (prefix ``BENTO_CLIP_``). Nothing is read when this is imported."""

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One attribute a setting; ``BENTO_CLIP_MAX_UPLOAD_BYTES=1000000`` sets ``max_upload_bytes``."""

    model_config = SettingsConfigDict(env_prefix="BENTO_CLIP_", frozen=True, populate_by_name=True)

    artifact: str = Field(
        default="clip-retrieval:latest", description="BentoML model tag, or the path of an artifact folder"
    )
    max_batch_size: int = Field(default=32, ge=2, le=512, description="most queries encoded together")
    max_pending: int = Field(default=128, ge=1, description="requests under way at once; further ones get 503")
    max_pending_images: int = Field(
        default=32,
        ge=1,
        description="of these, requests that bring images; further ones get 503",
        validation_alias=AliasChoices("BENTO_CLIP_MAX_PENDING_IMAGES", "BENTO_CLIP_MAX_PENDING_PICTURES"),
    )
    """The second name is that of releases before 0.2."""
    request_timeout_s: int = Field(default=30, ge=1, description="a request that takes longer gets 504")
    max_upload_bytes: int = Field(
        default=10 * 2**20, ge=1024, description="most bytes of a request body; more gets 413"
    )
    max_pixels: int = Field(default=50_000_000, ge=1, description="most pixels of an image; more gets 422")
    decode_threads: int = Field(default=2, ge=1, description="images decoded at once")
    cache_size: int = Field(default=4096, ge=0, description="results kept, and text vectors; 0 keeps none")
    cache_ttl_s: float = Field(default=3600, gt=0, description="seconds that a result is kept")
    workers: int | None = Field(
        default=None, ge=1, description="server processes, each with the encoder; one for every 8 cores if not set"
    )
    encoder_threads: int | None = Field(
        default=None, ge=1, description="threads of each worker's encoder; the cores divided by the workers if not set"
    )
    access_log: bool = Field(default=True, description="a line in the log for each request")
    traces: bool = Field(default=False, description="spans of requests; BentoML's own configuration says where to")
    precision: Literal["auto", "f32", "int8"] | None = Field(
        default=None,
        description="numeric precision of the encoder; int8 for an artifact built with it, else auto, if not set",
    )
    log_format: Literal["plain", "json"] = Field(default="plain", description="how log lines are written")
