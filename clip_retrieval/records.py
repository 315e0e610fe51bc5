"""The nouns that everything else speaks: what a source yields, what a collection holds, what a search finds.

Row numbers are the join between vectors and records: row *i* of the image vectors is ``ImageRecord.row == i``,
row *i* of the caption vectors is ``CaptionRecord.row == i``. Plain frozen dataclasses; no I/O, no numerics.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Scalar = str | int | float | bool | None
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Modality = Literal["images", "captions"]
"""What is searched, and what is found."""
MODALITIES: tuple[Modality, ...] = ("images", "captions")


@dataclass(frozen=True, slots=True)
class SourceCaption:
    """One caption as the source gives it; ``caption_id`` is None where the source names none."""

    text: str
    caption_id: str | None = None


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image as a reader yields it, not yet decoded or checked.

    ``image_id`` is unique within a source. ``path`` can be opened; ``image_path`` is how the source names the file
    (relative, forward slashes) and is what users see.
    """

    image_id: str
    path: Path
    image_path: str
    captions: tuple[SourceCaption, ...] = ()
    split: Split | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that was left out of a collection: where it stands in the source, and why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image that passed validation, in source order.

    ``content_hash`` is the hex SHA-256 of the decoded, upright RGB pixels and their size, so equal images have
    equal hashes whatever their file format. ``captions`` are normalised. ``path`` still names the file to decode.
    """

    image_id: str
    path: Path
    image_path: str
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
