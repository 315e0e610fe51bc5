"""Requests that change the collection while it is served, and their answers. ``docs/live.md`` has the rules."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clip_retrieval.contract.base import ErrorBody, Frozen, Strict
from clip_retrieval.contract.collection import ImageInfo
from clip_retrieval.contract.queries import MAX_NAME, Value
from clip_retrieval.records import Split

MAX_CHANGES = 64
"""Changes of one request."""
MAX_CAPTIONS = 100
"""Captions of one image."""
MAX_CAPTION = 10_000
"""Characters of a caption or of a value."""
MAX_FIELDS = 100
MAX_LISTED = 1000
DEFAULT_LISTED = 100
MAX_KEY = 255
"""Characters of an idempotency key."""

ImageId = Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="The id of the image.")]
ImagePath = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME, description="The name of the image that people see.")
]
Captions = Annotated[
    list[Annotated[str, Field(max_length=MAX_CAPTION, pattern=r"\S")]],
    Field(max_length=MAX_CAPTIONS, description="All captions of the image."),
]
FieldName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
FieldValue = Annotated[Value, Field()]
Metadata = Annotated[
    dict[FieldName, FieldValue],
    Field(max_length=MAX_FIELDS, description="The values of the image in the collection's fields."),
]
EntityTag = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME, description="The `etag` that the image must still have.")
]


class ChangedFields(Strict):
    """What a change says of an image beside its pixels; what is not given stays as it is."""

    captions: Captions | None = None
    metadata: Metadata | None = Field(
        None, description="A merge patch (RFC 7396): a value sets a field, null removes it, other fields stay."
    )
    split: Split | None = None

    @model_validator(mode="after")
    def _no_null(self) -> Self:
        for name in sorted(self.model_fields_set & {"captions", "metadata", "split"}):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is null; leave it out to keep what there is")
        return self


class PatchRequest(ChangedFields):
    """A change of an image's captions, fields or split."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change; give captions, metadata or split")
        return self


class Change(ChangedFields):
    """One change among several: ``put`` an image whole, ``patch`` what belongs to it, or ``delete`` it."""

    op: Literal["put", "patch", "delete"]
    image_id: ImageId
    image: str | None = Field(None, min_length=1, description="The bytes of an image file in base64; for put.")
    image_path: ImagePath | None = None
    if_match: EntityTag | None = None

    @model_validator(mode="after")
    def _fits_its_operation(self) -> Self:
        given = self.model_fields_set - {"op", "image_id", "if_match"}
        takes = {
            "put": {"image", "image_path", "captions", "metadata", "split"},
            "patch": {"captions", "metadata", "split"},
            "delete": set[str](),
        }[self.op]
        if unfit := sorted(given - takes):
            raise ValueError(f"{self.op} takes no {unfit[0]}")
        if self.op == "put" and self.image is None:
            raise ValueError("put needs image, the bytes of an image file in base64")
        if self.op == "patch" and not given:
            raise ValueError("there is nothing to change; give captions, metadata or split")
        return self


class ChangesRequest(Strict):
    """Several changes in one transaction. Each is checked on its own; those that are valid are made together."""

    changes: list[Any] = Field(
        min_length=1,
        max_length=MAX_CHANGES,
        description="Each has `op` (`put`, `patch` or `delete`) and `image_id`, and what its operation takes: `image` "
        "in base64, `image_path`, `captions`, `metadata`, `split`, `if_match`.",
    )


class Changed(Frozen):
    """A change that was made, or that found the image as it was to be."""

    image_id: str
    sequence: int = Field(description="The number of the change: a search with this `min_sequence` sees it.")
    created: bool = Field(description="Whether the image is new.")
    changed: bool = Field(description="Whether anything is different from before.")
    etag: str | None = Field(description="Names this state of the image, for `If-Match`; null if it was removed.")


class ChangeItem(Frozen):
    """The outcome of one change among several: its result, or its error with the status that it would have alone."""

    status: int
    result: Changed | None = None
    error: ErrorBody | None = None


class ChangesAnswer(Frozen):
    """The outcome of each change, in order."""

    sequence: int = Field(description="The number of the last change of the collection.")
    results: list[ChangeItem]


class ImagesPage(Frozen):
    """Images of the collection in the order of their ids, by code points."""

    images: list[ImageInfo]
    next: str | None = Field(description="Give it as `after` for the next page; null on the last page.")
