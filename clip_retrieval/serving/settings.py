"""Settings of the server, from environment variables with the prefix ``BENTO_CLIP_``. Importing this reads none."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from clip_retrieval.access.addresses import networks
from clip_retrieval.access.limits import Quota, Store
from clip_retrieval.access.redis_url import spoken_url
from clip_retrieval.artifacts.published_url import check_published
from clip_retrieval.errors import SourceError
from clip_retrieval.indexes.milvus_place import check_uri
from clip_retrieval.urls import is_url

FROZEN = "this collection is frozen: set BENTO_CLIP_CHANGES to a folder for its changes and start the service again"

PREFIX = "BENTO_CLIP_"

UVICORNS = "FORWARDED_ALLOW_IPS"
"""From this variable uvicorn takes the proxies that it believes; ``http/uvicorn_protocol.py`` has it believe none."""


def _split(given: object) -> object:
    return tuple(re.findall(r"[^\s,]+", given)) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several texts in one variable, with commas or spaces between."""

OF_CLIENTS = frozenset({"KEY"})
"""Variables with our prefix that the commands read which talk to a service."""

MULTIPART_FRAME_BYTES = 64 * 1024
"""What a form may add to the bytes of the image in it."""


class Settings(BaseSettings):
    """One attribute for each setting: ``BENTO_CLIP_MAX_UPLOAD_BYTES=1000000`` sets ``max_upload_bytes``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, populate_by_name=True)

    artifact: str = Field(
        default="clip-retrieval:latest",
        description="BentoML model tag, the path of an artifact folder, or what is published in a bucket, such as s3://bucket/photos/latest",
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
    max_body_memory: int | None = Field(
        default=None,
        ge=1024,
        description="bytes of all request bodies on their way together that a worker holds; beyond them the body that "
        "has been on its way for longest is dropped; default: a twelfth of what its memory leaves for requests",
    )
    receive_timeout_s: float = Field(
        default=10,
        gt=0,
        description="seconds in which the head of a request must come, and for which its body may pause; then 408; and "
        "for which a client may read nothing of its answer; then the connection ends",
    )
    max_connections: int | None = Field(
        default=None,
        ge=1,
        description="connections of a worker at a time; another one gets 503; default: what the limit of open files "
        "leaves beside 256, at most 8192",
    )
    min_body_rate: int = Field(
        default=4096,
        ge=1,
        description="bytes a second with which a body must come after its first receive_timeout_s; otherwise 408",
    )
    keep_alive_s: int = Field(
        default=75, ge=1, description="seconds for which an idle connection is kept; longer than its clients keep it"
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
    cache_url: str | None = Field(
        default=None,
        repr=False,
        description="a Redis or Valkey server in which several services keep results together",
    )
    cache_timeout_s: float = Field(
        default=0.005, gt=0, le=1, description="seconds after which a request no longer waits for that server"
    )
    workers: int | None = Field(
        default=None, ge=1, description="server processes, each with its own encoder; default: one for every 4 cores"
    )
    encoder_threads: int | None = Field(
        default=None, ge=1, description="threads of each worker's encoder; default: the cores divided by the workers"
    )
    reserve_core: bool = Field(
        default=True,
        description="whether the event loop of each worker has a core, which nothing else of the service computes on "
        "but the encoder while it is idle; only on Linux, with more cores than workers",
    )
    encoder_url: str | None = Field(
        default=None,
        description="where another service encodes for this one, such as http://encoder:3000; only for "
        "clip_retrieval.split_service, which else starts it itself",
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
        description="a model store tag, such as clip-retrieval:latest, or what is published in a bucket, such as "
        "s3://bucket/photos/latest: whenever it names another artifact, that one is served",
    )
    mirror: float = Field(
        default=0, ge=0, le=1, description="share of the queries that both artifacts answer before one takes over"
    )
    changes: Path | None = Field(
        default=None,
        description="folder where changes of the collection are kept; without it the collection is frozen",
    )

    query_log: Path | None = Field(
        default=None,
        description="folder where searches and clicks are logged, for bento-clip evaluate and tune; without it none is",
    )
    query_log_keep: Literal["text", "vectors"] = Field(
        default="text", description="what of a search is logged: its texts, or only its vector and no words"
    )
    query_log_bytes: int = Field(
        default=64 * 2**20,
        ge=2**20,
        description="most bytes of that log for one collection; beyond them the oldest searches go",
    )

    @model_validator(mode="after")
    def _something_to_log(self) -> Self:
        for name in ("query_log_keep", "query_log_bytes"):
            if self.query_log is None and name in self.model_fields_set:
                raise ValueError(f"{PREFIX}{name.upper()} has no effect without {PREFIX}QUERY_LOG, a folder")
        return self

    @field_validator("encoder_url")
    @classmethod
    def _reached_by_http(cls, given: str | None) -> str | None:
        if given is not None and not re.fullmatch(r"https?://[^/\s]+/?", given):
            raise ValueError(f"{given} is no URL of a service; write http://encoder:3000")
        return given

    originals: Path | None = Field(
        default=None,
        description="folder that the artifact was built from; the original files in it are given out, those alone that "
        "show images of the collection",
    )

    @field_validator("originals")
    @classmethod
    def _a_folder(cls, given: Path | None) -> Path | None:
        if given is not None and not given.is_dir():
            raise ValueError(f"{given} is no folder; name the one that the artifact was built from")
        return given

    @field_validator(
        *(
            "changes",
            "originals",
            "follow",
            "limit",
            "limits_url",
            "index_uri",
            "cache_url",
            "encoder_url",
            "query_log",
        ),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, given: object) -> object:
        """As compose files and charts set what is not set; no working folder and no nameless tag is meant."""
        return given or None

    index_uri: str | None = Field(
        default=None,
        repr=False,
        description="where the Milvus of the artifact's indexes is, with user and password if it has them; default: "
        "where the artifact says",
    )

    @field_validator("index_uri")
    @classmethod
    def _milvus(cls, given: str | None) -> str | None:
        return None if given is None else check_uri(given)

    @field_validator("artifact", "follow")
    @classmethod
    def _followed(cls, given: str | None) -> str | None:
        if given is not None and is_url(given):
            try:
                check_published(given)
            except SourceError as error:
                raise ValueError(str(error)) from error
        return given

    max_added: int = Field(
        default=20_000, ge=1, description="most images that are added or changed before a compaction; more get 429"
    )
    compact_at: int = Field(
        default=10_000,
        ge=0,
        description="changed and removed images after which a new artifact is made of the collection and its changes; "
        "0 never does",
    )
    limit: str | None = Field(
        default=None,
        description="what each caller may ask for, such as 600/minute, in units of a search with one text; more get "
        "429",
    )
    limits_url: str | None = Field(
        default=None,
        repr=False,
        description="a Redis or Valkey server in which several services count together what callers ask",
    )
    pending_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of the requests in progress above which a caller leaves the last places to others; 1 turns "
        "it off",
    )
    trusted_proxies: Names = Field(
        default=(),
        description="addresses and networks of proxies whose Forwarded and X-Forwarded-… headers are believed",
    )
    root_path: str = Field(
        default="",
        description="prefix of the path below which a proxy serves this: /clip; X-Forwarded-Prefix overrides",
    )
    hosts: Names = Field(
        default=(), description="names in the Host header that are answered, others get 421; default: every name"
    )
    cors_origins: Names = Field(
        default=(),
        description="origins whose pages may use the API in a browser, such as https://example.org, or * for all",
    )

    @field_validator("limit")
    @classmethod
    def _limit(cls, given: str | None) -> str | None:
        if given is not None:
            Quota.of(given)
        return given

    @field_validator("limits_url")
    @classmethod
    def _store(cls, given: str | None) -> str | None:
        if given is not None:
            Store(given)
        return given

    @field_validator("cache_url")
    @classmethod
    def _result_store(cls, given: str | None) -> str | None:
        if given is not None:
            spoken_url(given)
        return given

    @model_validator(mode="after")
    def _results_of_what_all_serve(self) -> Self:
        """Two services with changes of their own may give different collections one version."""
        if self.cache_url is not None and self.changes is not None:
            raise ValueError(
                f"{PREFIX}CACHE_URL shares the results of an artifact that does not change; leave it out where "
                f"{PREFIX}CHANGES is set"
            )
        if self.cache_url is None and "cache_timeout_s" in self.model_fields_set:
            raise ValueError(f"{PREFIX}CACHE_TIMEOUT_S has no effect without {PREFIX}CACHE_URL")
        return self

    @model_validator(mode="after")
    def _something_to_count(self) -> Self:
        if self.limits_url is not None and self.limit is None:
            raise ValueError(f"{PREFIX}LIMITS_URL has no effect without {PREFIX}LIMIT, such as 600/minute")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        networks(given)
        return given

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, given: str) -> str:
        prefix = given.rstrip("/")
        if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
            raise ValueError(f"{given} is no prefix of a path; write /clip, of letters, digits and -._~")
        return prefix

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for origin in given:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+", origin, re.IGNORECASE):
                raise ValueError(f"{origin} is no origin; write https://example.org, with the port if it is not 443")
            if not origin.isascii():
                raise ValueError(
                    f"{origin} has characters for which a browser sends others: write xn--… for such a name"
                )
            if re.fullmatch(r"(https:.*:443)|(http:.*:80)", origin, re.IGNORECASE):
                raise ValueError(f"{origin} has a port that no browser sends; write {origin.rpartition(':')[0]}")
        return given

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for host in given:
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9._-]+(:\d+)?|\[?[0-9A-Fa-f:.]+\]?(:\d+)?", host):
                raise ValueError(f"{host} is no name of a host; write example.org, example.org:8080 or *.example.org")
        return given

    log_format: Literal["plain", "json"] = Field(default="plain", description="the format of log lines")
    keys: Path | None = Field(default=None, description="the file of API keys that bento-clip keys makes")
    api_keys: str | None = Field(
        default=None, repr=False, description="the lines of such a file themselves, in place of a file"
    )
    insecure: bool = Field(default=False, description="whether everything is open without a key, changing too")
    readonly: bool = Field(default=False, description="whether nothing can be changed over HTTP, whatever the key")
    closed: Annotated[frozenset[Literal["metrics", "docs"]], NoDecode, BeforeValidator(_split)] = Field(
        default=frozenset(),
        description="what needs a key that is open by default: metrics (with /stats), docs, or both with a comma",
    )

    @field_validator("keys", "api_keys", mode="before")
    @classmethod
    def _blank_is_none(cls, given: object) -> object:
        """No nameless file is meant; a text without a line has no key, and a service without keys is not open."""
        return None if isinstance(given, str) and not given.strip() else given

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        """What contradicts itself is refused, for the setting that opens less may be the one that was meant."""
        if self.keys is not None and self.api_keys is not None:
            raise ValueError(f"give {PREFIX}KEYS or {PREFIX}API_KEYS, not both")
        if self.insecure and (self.keys is not None or self.api_keys is not None):
            raise ValueError(f"{PREFIX}INSECURE opens what the API keys are to protect; leave one of them out")
        return self

    @model_validator(mode="after")
    def _has_room_for_a_body(self) -> Self:
        if self.max_body_memory is not None and self.max_body_memory < self.max_body_bytes:
            raise ValueError(
                f"{PREFIX}MAX_BODY_MEMORY is {self.max_body_memory}, and one upload may have {self.max_body_bytes} "
                f"bytes with its form; raise it, or lower {PREFIX}MAX_UPLOAD_BYTES"
            )
        return self

    @property
    def max_body_bytes(self) -> int:
        """Most bytes of a body: those of an upload, and what its form adds to them."""
        return self.max_upload_bytes + MULTIPART_FRAME_BYTES


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable with our prefix that is no setting, in order of name, and for uvicorn's own list of
    proxies.

    Kubernetes sets such variables itself for a Service that is named ``bento-clip``; these are passed over.
    """
    known = {name.upper() for name in Settings.model_fields}
    linked = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT") if f"{PREFIX}SERVICE_HOST" in environment else ()
    sentences = []
    if environment.get(UVICORNS):
        sentences.append(f"{UVICORNS} has no effect; {PREFIX}TRUSTED_PROXIES names the proxies that are believed")
    for name in sorted(environment):
        short = name.upper().removeprefix(PREFIX)
        if short == name.upper() or short in {*known, *OF_CLIENTS, "MAX_PENDING_PICTURES"} or name.startswith(linked):
            continue
        near = get_close_matches(short, known, n=1)
        meant = (
            f"did you mean {PREFIX}{near[0]}?" if near else f"after {PREFIX} comes one of {', '.join(sorted(known))}"
        )
        sentences.append(f"{name} is no setting and has no effect; {meant}")
    return sentences
