"""The answers about the collection: its fields, its images, examples."""

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
    """Example images, evenly spread over the collection."""

    images: list[Example]


class FieldValue(Frozen):
    """A value of a field, and the number of images that have it."""

    value: str | bool
    count: int


class FieldInfo(Frozen):
    """A field that ``where`` can filter by.

    Beside a `where`, every number is of the images that meet its conditions on other fields.
    """

    name: str
    type: Literal["text", "number", "boolean"]
    count: int = Field(description="How many images have a value in this field.")
    values: list[FieldValue] = Field(description="The most frequent values of a text or boolean field.")
    min: float | None = Field(default=None, description="The lowest value of a number field.")
    max: float | None = Field(default=None, description="The highest value of a number field.")


class FieldsAnswer(Frozen):
    """The fields of the collection: its metadata columns and ``split``."""

    fields: list[FieldInfo]


class ImageInfo(Frozen):
    """Everything that the collection holds about one image."""

    image_id: str
    image_path: str
    width: int
    height: int
    split: Literal["train", "val", "test"]
    captions: list[str]
    metadata: dict[str, Scalar]
    content_hash: str = Field("", description="SHA-256 of the upright pixels and their size, in hex.")
    etag: str | None = Field(None, description="Names this state of the image, for `If-Match`.")


class ImagesPage(Frozen):
    """Images of the collection in the order of their ids, by code points."""

    images: list[ImageInfo]
    next: str | None = Field(description="Give it as `after` for the next page; null on the last page.")
