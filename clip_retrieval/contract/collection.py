"""What the API says of the collection: its fields, its images, examples."""

from typing import Literal

from pydantic import Field

from clip_retrieval.contract.base import Frozen
from clip_retrieval.records import Scalar


class Example(Frozen):
    """An image of the collection."""

    image_id: str
    image_path: str
    captions: list[str]
    width: int
    height: int


class Examples(Frozen):
    """Images spread over the collection."""

    images: list[Example]


class FieldValue(Frozen):
    """A value that images have in a field, and how many have it."""

    value: str | bool
    count: int


class FieldInfo(Frozen):
    """A field that ``where`` can name."""

    name: str
    type: Literal["text", "number", "boolean"]
    count: int = Field(description="How many images have a value.")
    values: list[FieldValue] = Field(description="The most frequent values of a text or boolean field.")
    min: float | None = Field(default=None, description="Least value of a number field.")
    max: float | None = None


class FieldsAnswer(Frozen):
    """The metadata columns of the collection, and its split."""

    fields: list[FieldInfo]


class ImageInfo(Frozen):
    """All that the collection holds of one image."""

    image_id: str
    image_path: str
    width: int
    height: int
    split: Literal["train", "val", "test"]
    captions: list[str]
    metadata: dict[str, Scalar]
