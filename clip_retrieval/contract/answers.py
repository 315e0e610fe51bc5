"""Answers of the endpoints around composed queries. Needs pydantic only."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from clip_retrieval.contract.queries import Target
from clip_retrieval.contract.schemas import CaptionResult, ErrorBody, ImageResult
from clip_retrieval.records import Scalar


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SearchAnswer(_Model):
    """One page of results, best first."""

    target: Target
    results: list[ImageResult] | list[CaptionResult]
    total_results: int = Field(description="How many results this page has.")
    offset: int
    next_offset: int | None = Field(description="The offset of the next page; null if this is the last.")
    query_time_ms: float = Field(description="From the parsed request to the answer, in milliseconds.")
    cached: bool = Field(description="Whether the results came from the cache.")
    truncated: bool = Field(False, description="Whether the model read only the beginning of a text.")


class BatchItem(_Model):
    """What became of one search: its answer, or its error with the status that it would have got alone."""

    status: int
    answer: SearchAnswer | None = None
    error: ErrorBody | None = None


class SearchBatchAnswer(_Model):
    """The outcome of each search, in order."""

    answers: list[BatchItem]


class FieldValue(_Model):
    """A value that pictures have in a field, and how many have it."""

    value: str | bool
    count: int


class FieldInfo(_Model):
    """A field that ``where`` can name."""

    name: str
    type: Literal["text", "number", "boolean"]
    count: int = Field(description="How many pictures have a value.")
    values: list[FieldValue] = Field(description="The most frequent values of a text or boolean field.")
    min: float | None = Field(default=None, description="Least value of a number field.")
    max: float | None = None


class FieldsAnswer(_Model):
    """The metadata columns of the collection, and its split."""

    fields: list[FieldInfo]


class ImageInfo(_Model):
    """All that the collection holds of one picture."""

    image_id: str
    image_path: str
    width: int
    height: int
    split: Literal["train", "val", "test"]
    captions: list[str]
    metadata: dict[str, Scalar]
