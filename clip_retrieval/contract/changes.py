"""Requests that change the collection while it is served, and their answers. ``docs/live.md`` has the rules."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from clip_retrieval.contract.base import LONGEST_ID, ErrorBody, Frozen, IdText, ImageId, Strict, describe
from clip_retrieval.contract.conditions import MAX_NAME, MAX_VALUE
from clip_retrieval.contract.image_input import ImageInput, read_image_input
from clip_retrieval.errors import InvalidChange
from clip_retrieval.records import Scalar, Split

M = TypeVar("M", bound=BaseModel)

MAX_CHANGES = 64
"""Changes of one request."""
MAX_CAPTIONS = 100
"""Captions of one image."""
MAX_CAPTIONS_TOGETHER = 1024
"""Captions of all changes of one request."""
MAX_CAPTION = 10_000
"""Characters of a caption."""
MAX_FIELDS = 100
MAX_KEY = 255
"""Characters of an idempotency key."""

ImagePath = Annotated[IdText, Field(min_length=1, description=f"The name of the image that people see. {LONGEST_ID}")]
Captions = Annotated[
    list[Annotated[str, Field(max_length=MAX_CAPTION, pattern=r"\S")]],
    Field(max_length=MAX_CAPTIONS, description="All captions of the image."),
]


def _no_split(name: str) -> str:
    if name == "split":
        raise ValueError("split is no field of metadata; give it as split beside it")
    return name


FieldName = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_no_split)]
# Strict: a text that is too long for one would be taken for the number that its digits make.
FieldValue = (
    Annotated[str, Field(max_length=MAX_VALUE)]
    | StrictBool
    | StrictInt
    | Annotated[float, Field(allow_inf_nan=False, strict=True)]
    | None
)
Metadata = Annotated[
    dict[FieldName, FieldValue],
    Field(max_length=MAX_FIELDS, description="The values of the image in the collection's fields."),
]
EntityTag = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME, description="The `etag` that the image must still have.")
]


def _without_null(schema: dict[str, Any]) -> None:
    """Left out is not null: the description says what the model's own check asks."""
    for value in schema["properties"].values():
        if {"type": "null"} in value.get("anyOf", ()):
            [form] = [one for one in value.pop("anyOf") if one != {"type": "null"}]
            value.pop("default", None)
            value.update({**form, **value})


class ChangedFields(Strict):
    """What a change says of an image beside its pixels; what is not given stays as it is."""

    model_config = ConfigDict(json_schema_extra=_without_null)

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


def _patch(schema: dict[str, Any]) -> None:
    _without_null(schema)
    schema["examples"] = [{"captions": ["an owl at night"], "metadata": {"year": 2024}}]


class PatchRequest(ChangedFields):
    """A change of an image's captions, fields or split."""

    model_config = ConfigDict(json_schema_extra=_patch)

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

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"changes": [{"op": "patch", "image_id": "owl.jpg", "captions": ["an owl at night"]}]}]
        }
    )

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


def put(
    image_id: str,
    image: ImageInput,
    *,
    captions: Sequence[str] = (),
    metadata: Mapping[str, Scalar] | None = None,
    split: Split | None = None,
    image_path: str | None = None,
    if_match: str | None = None,
) -> Change:
    """A change that sets an image with its captions and fields.

    Raises InvalidChange if a value is out of bounds, and OSError if a file cannot be read.
    """
    data = base64.b64encode(read_image_input(image)[1]).decode()
    optional = {"metadata": metadata, "split": split, "image_path": image_path, "if_match": if_match}
    return _checked(Change, op="put", image_id=image_id, image=data, captions=list(captions), **_given(optional))


def patch(
    image_id: str,
    *,
    captions: Sequence[str] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
    split: Split | None = None,
    if_match: str | None = None,
) -> Change:
    """A change of what is given of an image; in ``metadata`` None removes a field. Raises InvalidChange."""
    optional = {"captions": captions, "metadata": metadata, "split": split, "if_match": if_match}
    return _checked(Change, op="patch", image_id=image_id, **_given(optional))


def delete(image_id: str, *, if_match: str | None = None) -> Change:
    """A change that removes an image. Raises InvalidChange if the id is out of bounds."""
    return _checked(Change, op="delete", image_id=image_id, **_given({"if_match": if_match}))


def patch_request(
    captions: Sequence[str] | None, metadata: Mapping[str, Scalar] | None, split: Split | None
) -> PatchRequest:
    """A change of what is given of one image. Raises InvalidChange if a value is out of bounds."""
    return _checked(PatchRequest, **_given({"captions": captions, "metadata": metadata, "split": split}))


def _checked(model: Callable[..., M], **values: Any) -> M:
    try:
        return model(**values)
    except ValidationError as error:
        raise InvalidChange(describe(error.errors())) from None


def _given(optional: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are not None, in the types that JSON has."""
    given = {name: value for name, value in optional.items() if value is not None}
    plain: Mapping[str, Callable[[Any], Any]] = {"captions": list, "metadata": dict}
    return {name: plain[name](value) if name in plain else value for name, value in given.items()}
