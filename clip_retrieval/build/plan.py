"""What must change so that a collection equals a source. Nothing is read or written here."""

import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clip_retrieval.build.splits import with_one_split
from clip_retrieval.records import CaptionRecord, ImageRecord, Scalar, Split, ValidImage

Part = Literal["image", "captions", "metadata", "split", "path", "original"]
"""A part of an image's state that can differ."""


@dataclass(frozen=True, slots=True)
class ImageState:
    """What two sides have to agree on for one image. The ids of captions are not compared."""

    content_hash: str
    captions: tuple[str, ...]
    """Their normalised texts, in order."""
    metadata: Mapping[str, Scalar]
    split: Split | None
    """None in a source that leaves the split to the draw: then any split will do."""
    image_path: str
    languages: tuple[str | None, ...] | None = None
    """Those of the captions; None of a service, which does not know them: then any will do."""
    original: str | None = None
    """The hex SHA-256 of the original file; None in a source whose files are not compared: then any will do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes that make a collection equal to a source, by image_id, in the order of the source."""

    added: tuple[str, ...]
    changed: Mapping[str, tuple[Part, ...]]
    """What differs of each image that both sides have."""
    removed: tuple[str, ...]
    """In the order of the collection."""
    unchanged: int
    unreadable: tuple[str, ...] = ()
    """Images of the collection that the source names and that cannot be read now: they stay as they are."""

    @property
    def is_empty(self) -> bool:
        """Whether the collection equals the source already."""
        return not (self.added or self.changed or self.removed)

    @property
    def held(self) -> int:
        """The number of images of the collection before the changes."""
        return len(self.changed) + len(self.removed) + self.unchanged + len(self.unreadable)

    @property
    def removes_most(self) -> bool:
        """Whether more than half of the collection would go: a wrong or an unmounted folder looks like that."""
        return 2 * len(self.removed) > self.held

    def __str__(self) -> str:
        counts = {
            "added": len(self.added),
            "changed": len(self.changed),
            "removed": len(self.removed),
            "unchanged": self.unchanged,
        }
        said = ", ".join(f"{number} {name}" for name, number in counts.items())
        return f"{said}, {len(self.unreadable)} left as they are" if self.unreadable else said

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "added": list(self.added),
            "changed": {image_id: list(parts) for image_id, parts in self.changed.items()},
            "removed": list(self.removed),
            "unchanged": self.unchanged,
            "unreadable": list(self.unreadable),
        }


def plan(
    source: Mapping[str, ImageState], held: Mapping[str, ImageState], unreadable: Collection[str] = frozenset()
) -> Plan:
    """The changes from ``held``, the states of a collection by image_id, to ``source``.

    ``unreadable`` are ids that the source names without a usable image; the collection keeps what it has of them.
    """
    changed = {
        image_id: parts
        for image_id, wanted in source.items()
        if image_id in held and (parts := _differences(wanted, held[image_id]))
    }
    gone = [image_id for image_id in held if image_id not in source]
    return Plan(
        added=tuple(image_id for image_id in source if image_id not in held),
        changed=changed,
        removed=tuple(image_id for image_id in gone if image_id not in unreadable),
        unchanged=sum(image_id in held for image_id in source) - len(changed),
        unreadable=tuple(image_id for image_id in gone if image_id in unreadable),
    )


def states_of_source(images: Sequence[ValidImage]) -> dict[str, ImageState]:
    """The states of validated images, by image_id; equal images have one given split, as in an artifact."""
    return {
        image.image_id: ImageState(
            image.content_hash,
            tuple(caption.text for caption in image.captions),
            image.metadata,
            image.split,
            image.blob.name,
            tuple(caption.language for caption in image.captions),
        )
        for image in with_one_split(images)
    }


def states_of_records(
    images: Iterable[ImageRecord], captions: Iterable[CaptionRecord], originals: Sequence[str | None] | None = None
) -> dict[str, ImageState]:
    """The states of the records of an artifact, by image_id; ``originals`` are the hashes by row that it keeps."""
    of_image: dict[int, list[CaptionRecord]] = {}
    for caption in captions:
        of_image.setdefault(caption.image_row, []).append(caption)
    return {
        image.image_id: ImageState(
            image.content_hash,
            tuple(caption.text for caption in of_image.get(image.row, ())),
            image.metadata,
            image.split,
            image.image_path,
            tuple(caption.language for caption in of_image.get(image.row, ())),
            None if originals is None else originals[image.row],
        )
        for image in images
    }


def _differences(wanted: ImageState, held: ImageState) -> tuple[Part, ...]:
    differs: dict[Part, bool] = {
        "image": wanted.content_hash != held.content_hash,
        "captions": wanted.captions != held.captions
        or (held.languages is not None and wanted.languages != held.languages),
        "metadata": _canonical(wanted.metadata) != _canonical(held.metadata),
        "split": wanted.split is not None and wanted.split != held.split,
        "path": _one_form(wanted.image_path) != _one_form(held.image_path),
        "original": wanted.original is not None and wanted.original != held.original,
    }
    return tuple(part for part, is_different in differs.items() if is_different)


def _canonical(metadata: Mapping[str, Scalar]) -> str:
    """Equal for equal fields: a field without a value is none, ``True`` is not 1, and é has one form."""
    given = {name: value for name, value in metadata.items() if value is not None}
    return _one_form(json.dumps(given, sort_keys=True, ensure_ascii=False))


def _one_form(text: str) -> str:
    return unicodedata.normalize("NFC", text)
