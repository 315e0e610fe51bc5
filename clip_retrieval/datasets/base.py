"""The base class of readers, and what they share: the suffixes of images, names of splits, what counts as text.

A reader yields a CaptionedImage for each image and a Reject for each item that it could not read. It opens no image:
validation finds missing and damaged files. A source that cannot be read at all raises SourceError.
"""

import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from clip_retrieval.datasets.taking import Taking
from clip_retrieval.records import MAX_ID_BYTES, CaptionedImage, ImageBlob, Reject, Split

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".avif", ".heic", ".heif", ".hif", ".jxl"}
)
"""Files of these names are images without a look inside; a damaged one is rejected when it is decoded."""

_SPLIT = "split"
_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
    "restval": "train",  # Karpathy's split of COCO: what is left of its validation images, used for training
}


class Source(ABC):
    """A collection that can be read. Each iteration gives the same items in the same order.

    ``name`` is the layout. ``has_captions`` says whether the layout has captions at all; without captions only image
    search works.
    """

    name: str
    has_captions: bool = True
    takes_columns: bool = False
    """Whether a person may name columns; other layouts have none."""
    vectors_mark: str | None = None
    """If the images are vectors that another program made: changes whenever the files of the vectors do."""
    images_alone: bool = False
    """Whether a person wants no captions, whatever the layout has."""
    unlisted: Sequence[Reject] = ()
    """What of the place could not be listed."""

    @cached_property
    def taking(self) -> Taking:
        """How the source was understood; whole after the first iteration."""
        return Taking(self.name, "")

    def __iter__(self) -> Iterator[CaptionedImage | Reject]:
        """The images, each with a unique ``image_id``; a later image with a used id becomes a Reject,
        as does one whose id is longer than a path.

        No field is called ``split``, as the split itself is: such a value becomes a Reject.
        """
        owners: dict[str, ImageBlob] = {}
        yield from self.unlisted
        for item in self.read():
            if not isinstance(item, CaptionedImage):
                yield item
                continue
            if (owner := owners.get(item.image_id)) is not None:
                yield Reject(item.blob.name, _used_twice(item, owner))
                continue
            if (size := len(item.image_id.encode("utf-8", "replace"))) > MAX_ID_BYTES:
                yield Reject(item.blob.name, f"its id has {size:,} bytes, and {MAX_ID_BYTES:,} are the most")
                continue
            owners[item.image_id] = item.blob
            if item.metadata.get(_SPLIT) is not None:
                reason = "the value of 'split' was not read as the split, and no field has this name"
                yield Reject(item.blob.name, f"{reason}; rename it; the image is kept without it")
            metadata = {name: value for name, value in item.metadata.items() if name != _SPLIT}
            yield replace(item, metadata=metadata, captions=() if self.images_alone else item.captions)
        self.taking.fields.pop(_SPLIT, None)
        if self.images_alone:
            self.taking.columns.pop("caption", None)

    @abstractmethod
    def read(self) -> Iterator[CaptionedImage | Reject]:
        """The images as the layout gives them; their ids need not be unique yet. Raises SourceError."""


def _used_twice(image: CaptionedImage, owner: ImageBlob) -> str:
    """Why an image cannot have its image_id, which ``owner`` has."""
    if {image.image_id} == {unicodedata.normalize("NFC", blob.name) for blob in (image.blob, owner)}:
        spelled = " and ".join(_spelled(blob) for blob in (owner, image.blob))
        return f"{spelled} are one name in two Unicode forms; rename one of these files"
    return f"image_id {image.image_id!r} is already used by {owner.name}; give each its own, or rename the column"


def _spelled(blob: ImageBlob) -> str:
    """The name of an image as its file system has it, in ASCII."""
    path = getattr(blob, "path", None)
    parts = path.parts[-len(blob.name.split("/")) :] if isinstance(path, Path) else [blob.name]
    return ascii("/".join(parts))


def absolute(path: Path) -> Path:
    """An absolute path without ``..``. Symbolic links are kept, so that names inside a source stay as they are."""
    return Path(os.path.normpath(Path.cwd() / path))


def parse_split(name: str) -> Split | None:
    """The split of this name in any common spelling, with or without a year (``val2017``); None for an empty name.

    Raises ValueError for other names.
    """
    if not (key := name.strip().lower()):
        return None
    key = re.sub(r"(?<=[a-z])[_-]?\d{4}$", "", key)
    if key not in _SPLIT_NAMES:
        raise ValueError(f"split {name!r} is unknown; use one of {', '.join(_SPLIT_NAMES)}")
    return _SPLIT_NAMES[key]


def parse_language(value: object) -> str | None:
    """The language of a caption as a source writes it, in Unicode NFC; None for what is empty or no text."""
    if not isinstance(value, str) or not is_text(value):
        return None
    return unicodedata.normalize("NFC", value.strip()) or None


def is_text(value: str) -> bool:
    """Whether a string can be stored. Bytes that are not UTF-8 and lone surrogates of JSON escapes cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
