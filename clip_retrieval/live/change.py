"""A change of an image: its whole state afterwards, or that it was removed.

An entry of the log needs no other entry: the latest entry of an image is all that there is to know of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.records import Scalar, Split


@dataclass(frozen=True, slots=True)
class LiveCaption:
    """One caption of a live image. ``text`` is normalised as in a build."""

    caption_id: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class LiveImage:
    """The whole state of one image.

    ``image_path`` is the name that users see. ``content_hash`` is as in ``ValidImage``. ``vector`` has the shape
    (dim,), ``caption_vectors`` (captions, dim); both are float32, their rows of unit length. ``thumbnail`` is None in a
    collection without thumbnails. ``original`` is the hex SHA-256 of the original file, None where that is not kept.
    """

    image_id: str
    image_path: str
    content_hash: str
    width: int
    height: int
    split: Split
    metadata: Mapping[str, Scalar]
    captions: tuple[LiveCaption, ...]
    vector: Vectors
    caption_vectors: Vectors
    thumbnail: Thumbnail | None
    original: str | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The change of number ``sequence``: 1, 2, 3 … for the life of the log. ``image`` is None if it was removed."""

    sequence: int
    image_id: str
    image: LiveImage | None
