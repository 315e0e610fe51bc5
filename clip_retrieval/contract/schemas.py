"""Requests and answers of the HTTP API: the one place that defines them, for the service and for the client.

Needs pydantic only.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clip_retrieval.records import Scalar

MAX_K = 50
DEFAULT_K = 5
MAX_TEXT = 1000
MAX_PROBLEMS = 8

K = Annotated[int, Field(ge=1, le=MAX_K, description="How many results; fewer come back if there are fewer.")]
Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TEXT,
        pattern=r"\S",
        description="What is looked for. The model reads a limited number of tokens; `truncated` says if that cut it.",
    ),
]
Score = Annotated[float, Field(description="Cosine of query and result in [-1, 1]; higher is better.")]
Confidence = Annotated[
    float,
    Field(
        description="Softmax of the returned scores at the model's own logit scale: each result's share among those "
        "returned, not a probability of being right."
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SearchImagesRequest(_Model):
    """Text to pictures."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"text": "a red panda", "k": 5}]}
    )

    text: Text
    k: K = DEFAULT_K


class EncodeTextRequest(_Model):
    """Text to its vector."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"text": "a red panda"}]})

    text: Text


class ImageResult(_Model):
    """A picture that was found."""

    rank: int = Field(description="1 for the best.")
    image_id: str
    image_path: str = Field(description="The picture's file as the collection names it.")
    width: int = Field(description="Pixels of the upright picture.")
    height: int
    similarity_score: Score
    confidence: Confidence
    captions: list[str]
    metadata: dict[str, Scalar] = Field(description="The collection's other columns of this picture.")
    duplicates: int = Field(0, description="How many near-duplicates were folded into this result.")


class CaptionResult(_Model):
    """A caption that was found, with the picture that it belongs to."""

    rank: int = Field(description="1 for the best.")
    caption: str
    caption_id: str
    image_id: str
    image_path: str = Field(description="The file of the caption's picture as the collection names it.")
    similarity_score: Score
    confidence: Confidence
    duplicates: int = Field(0, description="How many near-duplicates were folded into this result.")


class _Answer(_Model):
    query: str = Field(description="The text, or the name of the uploaded file.")
    query_type: Literal["text", "image"]
    total_results: int
    query_time_ms: float = Field(description="From the parsed request to the answer, in milliseconds.")
    cached: bool = Field(description="Whether the results came from the cache.")
    truncated: bool = Field(False, description="Whether the model read only the beginning of the text.")


class ImagesAnswer(_Answer):
    """Pictures, best first."""

    results: list[ImageResult]


class CaptionsAnswer(_Answer):
    """Captions, best first."""

    results: list[CaptionResult]


class TextEmbedding(_Model):
    """The unit vector of a text."""

    embedding: list[float]
    dimension: int
    encoding_type: Literal["text"] = "text"
    text: str
    truncated: bool = False


class ImageEmbedding(_Model):
    """The unit vector of a picture."""

    embedding: list[float]
    dimension: int
    encoding_type: Literal["image"] = "image"
    filename: str


class ServiceInfo(_Model):
    """What is served here."""

    name: str
    version: str
    model: str
    images: int
    captions: int
    artifact: str
    links: dict[str, str]
    notes: list[str] = Field(description="What a user should know, such as a search that is off and why.")


class Example(_Model):
    """A picture of the collection."""

    image_id: str
    image_path: str
    captions: list[str]
    width: int
    height: int


class Examples(_Model):
    """Pictures spread over the collection."""

    images: list[Example]


class Health(_Model):
    """Whether queries can be answered."""

    status: Literal["healthy", "starting"]
    timestamp: datetime
    model_loaded: bool
    indexes_loaded: bool
    uptime_seconds: float
    artifact: str | None


class Percentiles(_Model):
    """Percentiles of single requests, in milliseconds, over the newest ones."""

    count: int
    p50: float
    p95: float
    p99: float


class Stats(_Model):
    """What has been served since the start."""

    uptime_seconds: float
    queries: dict[str, int] = Field(description="Answered requests by kind.")
    cache_hits: int
    cache_misses: int
    cache_size: int
    latency_ms: dict[str, Percentiles] = Field(
        description="By stage: `encode` and `search` of the batch that served the request, `total` of the request."
    )


class CacheCleared(_Model):
    """The result cache is empty now."""

    message: str
    previous_cache_size: int
    current_cache_size: int


class ErrorBody(_Model):
    """Every answer of 400 and above."""

    error: str = Field(description="The kind of error, in words.")
    detail: str = Field(description="What is wrong, and what to do about it.")


def describe(problems: Iterable[Any]) -> str:
    """Pydantic's list of errors as one sentence a field, without the name of the request's part in front."""
    sentences = []
    for problem in problems:
        if not isinstance(problem, dict):
            sentences.append(str(problem))
            continue
        where = [str(part) for part in problem.get("loc", ())]
        if len(where) > 1 and where[0] in {"body", "query"}:
            where = where[1:]
        what = str(problem.get("msg", "")).removeprefix("Value error, ")
        sentences.append(f"{'.'.join(where)}: {what}".lstrip(": "))
    if len(sentences) > MAX_PROBLEMS:
        sentences[MAX_PROBLEMS:] = [f"and {len(sentences) - MAX_PROBLEMS} more"]
    return "; ".join(sentences)
