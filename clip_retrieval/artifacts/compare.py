"""What differs between two artifacts: encoder, images, captions, fields and indexes.

An image is identified by its ``image_id``: an id that only one side has was added or removed, and an image was changed
if its pixels have another hash, or its path or its metadata differ. A caption is identified by image, text and
language, as a multiset: a new ``caption_id`` for the same words is no difference. A field is a metadata column and its
type.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.indexes.base import BuiltIndex
from clip_retrieval.records import ImageRecord

Change = tuple[Any, Any]
"""A value in the first artifact and in the second."""


@dataclass(frozen=True, slots=True)
class Caption:
    image_id: str
    text: str
    language: str | None = None

    def __str__(self) -> str:
        return f"{self.image_id}: {self.text}" + (f" ({self.language})" if self.language else "")


@dataclass(frozen=True)
class Comparison:
    """The differences from the first artifact to the second; every field is empty when the artifacts are equal."""

    encoder: Mapping[str, Change]
    """By field of ``EncoderInfo``."""
    images_added: tuple[str, ...]
    images_removed: tuple[str, ...]
    images_changed: tuple[str, ...]
    splits_changed: tuple[str, ...]
    """Image ids in row order; the captions below in row order too."""
    captions_added: tuple[Caption, ...]
    captions_removed: tuple[Caption, ...]
    fields: Mapping[str, Change]
    """The type of each field whose type differs; None where an artifact lacks the field."""
    image_index: Mapping[str, Change]
    caption_index: Mapping[str, Change]
    """By field of ``IndexSpec`` and ``Measurement``. Times are reported only beside another change: alone they are
    the machine's noise."""
    data: Mapping[str, Change]
    """By field of ``DataInfo``, without its fingerprint: the records show in full what differs. ``words`` are the
    columns that words come from; None in an artifact without words."""

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(asdict(self).values())

    def to_json(self) -> dict[str, Any]:
        return {"equal": not self, **asdict(self)}


def compare(first: Artifact, second: Artifact) -> Comparison:
    """The differences from ``first`` to ``second``. Raises ArtifactError when the records of one cannot be read."""
    images, captions = _records(first)
    other_images, other_captions = _records(second)
    both = [(image, other_images[name]) for name, image in images.items() if name in other_images]
    a, b = first.manifest, second.manifest
    return Comparison(
        encoder=_changes(a.encoder.model_dump(), b.encoder.model_dump()),
        images_added=tuple(image for image in other_images if image not in images),
        images_removed=tuple(image for image in images if image not in other_images),
        images_changed=tuple(one.image_id for one, other in both if _facts(one) != _facts(other)),
        splits_changed=tuple(one.image_id for one, other in both if one.split != other.split),
        captions_added=tuple((other_captions - captions).elements()),
        captions_removed=tuple((captions - other_captions).elements()),
        fields=_field_changes(first, second),
        image_index=_index_changes(a.images, b.images),
        caption_index=_index_changes(a.captions, b.captions),
        data=_changes(_data(first), _data(second)),
    )


def _facts(image: ImageRecord) -> tuple[str, str, str]:
    """What an image is. As JSON, since ``True`` is not 1."""
    return image.content_hash, image.image_path, json.dumps(image.metadata, sort_keys=True)


def _data(artifact: Artifact) -> dict[str, Any]:
    columns = artifact.word_columns()
    chosen = "all of text" if columns is None else ", ".join(columns)
    words = chosen if artifact.has_words else None
    return artifact.manifest.data.model_dump(exclude={"fingerprint"}) | {"words": words}


def _records(artifact: Artifact) -> tuple[dict[str, ImageRecord], Counter[Caption]]:
    with closing(artifact.store()) as store:
        images = store.images()
        captions = store.captions()
    return (
        {image.image_id: image for image in images},
        Counter(Caption(images[one.image_row].image_id, one.text, one.language) for one in captions),
    )


def _field_changes(first: Artifact, second: Artifact) -> dict[str, Change]:
    types, others = ({c.info.name: c.info.type for c in artifact.columns()} for artifact in (first, second))
    names = dict.fromkeys([*types, *others])
    return {name: (types.get(name), others.get(name)) for name in names if types.get(name) != others.get(name)}


MEASURED_TIMES = {"p50_ms", "p99_ms", "build_s"}
"""Fields that every build measures again, with slightly different values."""


def _index_changes(first: BuiltIndex, second: BuiltIndex) -> dict[str, Change]:
    changes = _changes(first.facts(), second.facts())
    return {} if changes.keys() <= MEASURED_TIMES else changes


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Change]:
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}
