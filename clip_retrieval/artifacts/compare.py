"""What differs between two artifacts: encoder, images, captions and indexes.

Images are told apart by ``image_id`` and by the hash of their pixels: one with an id that only one side has was added
or removed, one whose pixels differ under the same id was changed. Captions are told apart by image and text, as a
multiset: a new ``caption_id`` for the same words is no difference.
"""

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


@dataclass(frozen=True)
class Comparison:
    """The differences from the first artifact to the second; everything is empty when there is none."""

    encoder: Mapping[str, Change]
    """By field of ``EncoderInfo``."""
    images_added: tuple[str, ...]
    images_removed: tuple[str, ...]
    images_changed: tuple[str, ...]
    """Image ids in the order of their rows, likewise the captions."""
    captions_added: tuple[Caption, ...]
    captions_removed: tuple[Caption, ...]
    image_index: Mapping[str, Change]
    caption_index: Mapping[str, Change]
    """By field of ``IndexSpec`` and ``Measurement``. Times are reported only beside another change: alone they are
    the machine's noise."""
    data: Mapping[str, Change]
    """By field of ``DataInfo``: name, splits, rejects; not its fingerprint, which the records tell in full."""

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(asdict(self).values())

    def to_json(self) -> dict[str, Any]:
        return {"equal": not self, **asdict(self)}


def compare(first: Artifact, second: Artifact) -> Comparison:
    """The differences from ``first`` to ``second``. Raises ArtifactError when the records of one cannot be read."""
    images, captions = _records(first)
    other_images, other_captions = _records(second)
    a, b = first.manifest, second.manifest
    return Comparison(
        encoder=_changes(a.encoder.model_dump(), b.encoder.model_dump()),
        images_added=tuple(image for image in other_images if image not in images),
        images_removed=tuple(image for image in images if image not in other_images),
        images_changed=tuple(
            name
            for name, image in images.items()
            if name in other_images and other_images[name].content_hash != image.content_hash
        ),
        captions_added=tuple((other_captions - captions).elements()),
        captions_removed=tuple((captions - other_captions).elements()),
        image_index=_index_changes(a.images, b.images),
        caption_index=_index_changes(a.captions, b.captions),
        data=_changes(a.data.model_dump(exclude={"fingerprint"}), b.data.model_dump(exclude={"fingerprint"})),
    )


def _records(artifact: Artifact) -> tuple[dict[str, ImageRecord], Counter[Caption]]:
    with closing(artifact.store()) as store:
        images = store.images()
        captions = store.captions()
    return (
        {image.image_id: image for image in images},
        Counter(Caption(images[caption.image_row].image_id, caption.text) for caption in captions),
    )


MEASURED_TIMES = {"p50_ms", "p99_ms", "build_s"}
"""What is measured anew in each build and never quite the same."""


def _index_changes(first: BuiltIndex, second: BuiltIndex) -> dict[str, Change]:
    changes = _changes(first.facts(), second.facts())
    return {} if changes.keys() <= MEASURED_TIMES else changes


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Change]:
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}
