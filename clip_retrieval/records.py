"""The records of the whole package: what a source yields, what a collection holds, what a search finds.

Row numbers join vectors and records: row *i* of the image vectors belongs to the ``ImageRecord`` with ``row == i``, and
row *i* of the caption vectors to the ``CaptionRecord`` with ``row == i``. The records are plain frozen
dataclasses, without I/O and without numerics.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Scalar = str | int | float | bool | None
FieldType = Literal["text", "number", "boolean"]
EXACT = 2**53
"""Whole numbers up to this one are exact in double precision. A field with a larger one holds ids and is text."""
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d{1,15})?")
"""A number in text as a person writes it; a code such as 007 is none."""

MAX_ID_BYTES = 4096
"""Bytes of an image's id or name in UTF-8, at most: those of a path."""
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Modality = Literal["images", "captions"]
"""The kind of rows that an index holds and a search returns."""
MODALITIES: tuple[Modality, ...] = ("images", "captions")

Way = Literal["text_to_image", "image_to_text"]
"""From what to what a search between texts and images goes."""
WAYS: tuple[Way, ...] = ("text_to_image", "image_to_text")


Mode = Literal["vector", "words", "both"]
"""What finds: the vectors, the words of captions, file names and metadata, or both."""
MODES: tuple[Mode, ...] = ("vector", "words", "both")


def way_of(target: Modality, *, has_texts: bool, has_images: bool) -> Way | None:
    """The way of a search with such parts; None for images to images, texts to texts, and for mixes."""
    if target == "images":
        return "text_to_image" if has_texts and not has_images else None
    return "image_to_text" if has_images and not has_texts else None


def field_type(value: str | float) -> FieldType:
    """What one value of a field is. A field is what all its values are, and text if they differ.

    A table file holds text alone, so text that a person writes as a plain number counts as a number.
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        is_number = _PLAIN_NUMBER.fullmatch(value) is not None and abs(float(value)) <= EXACT
    else:
        is_number = isinstance(value, float) or abs(value) <= EXACT
    return "number" if is_number else "text"


@dataclass(frozen=True, slots=True)
class SourceCaption:
    """One caption as the source gives it; ``caption_id`` and ``language`` are None if the source gives none."""

    text: str
    caption_id: str | None = None
    language: str | None = None
    """The language as the source writes it: ``de``, ``German``."""


class ImageBlob(Protocol):
    """The bytes of one image, with a name: a file, a member of an archive, an object in a store."""

    @property
    def name(self) -> str:
        """The name that users see: relative to the source, with forward slashes."""
        ...

    def read(self, limit: int) -> bytes:
        """The bytes, at most ``limit`` + 1 of them. Safe in any thread. Raises ImageRejected with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image as a reader yields it, not yet decoded or checked. ``image_id`` is unique within a source."""

    image_id: str
    blob: ImageBlob
    captions: tuple[SourceCaption, ...] = ()
    split: Split | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """An item that was left out of a collection: its place in the source, and the reason."""

    where: str
    reason: str
    may_hide: bool = field(default=False, compare=False)
    """Whether images of the source may be behind it, which then are not gone: a folder that cannot be listed, a row
    that cannot be read."""


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image that passed validation, in source order.

    ``content_hash`` is the hex SHA-256 of the decoded, upright RGB pixels and their size: equal images have equal
    hashes in every file format. ``captions`` are normalised. ``blob`` can be read again.
    """

    image_id: str
    blob: ImageBlob
    content_hash: str
    width: int
    height: int
    captions: tuple[SourceCaption, ...]
    split: Split | None
    metadata: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a collection: row ``row`` of the image vectors."""

    row: int
    image_id: str
    image_path: str
    content_hash: str
    width: int
    height: int
    split: Split
    metadata: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """One caption of a collection: row ``row`` of the caption vectors, about the image in ``image_row``."""

    row: int
    caption_id: str
    image_row: int
    text: str
    language: str | None = None
    """As in ``SourceCaption``."""
