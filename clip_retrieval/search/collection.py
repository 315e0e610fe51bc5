"""Records, vectors, indexes, filters and thumbnails of one artifact, under its version.

A collection is what a server swaps, and what caches are keyed by. It is immutable, and safe from several threads.
"""

import threading
from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.artifacts.thumbnails import Size
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.indexes.base import VectorIndex
from clip_retrieval.records import CaptionRecord, ImageRecord, Modality
from clip_retrieval.search.filters import RowFilter
from clip_retrieval.search.hits import CaptionHit, Hit, ImageHit
from clip_retrieval.search.results import caption_fragment, image_fragment

FRAGMENTS_KEPT = 10_000
"""Records that are kept as JSON: about 1 KB an image with five captions. Reading them from the store takes a fifth of a
request's time."""


class Collection:
    """One artifact, open for searching."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactDamaged when a file of the artifact cannot be read, ArtifactNotFound when it is gone."""
        self.artifact = artifact
        self._in_use = InUse(artifact.path)  # no clean-up deletes it meanwhile
        self._store = artifact.store()
        self._indexes: dict[Modality, VectorIndex] = {
            "images": artifact.index("images"),
            "captions": artifact.index("captions"),
        }
        self._content_numbers = artifact.content_numbers()
        self.filters = RowFilter(artifact.columns(), artifact.caption_image_rows())
        self._fragments: dict[Modality, LRUCache[int, str]] = {
            "images": LRUCache(FRAGMENTS_KEPT),
            "captions": LRUCache(FRAGMENTS_KEPT),
        }
        self._lock = threading.Lock()
        self._thumbnails = artifact.thumbnails()

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def version(self) -> str:
        """The version of the artifact: equal versions have equal answers."""
        return self.artifact.manifest.version

    @property
    def fields(self) -> list[FieldInfo]:
        """The fields that ``where`` can name."""
        return self.filters.fields

    def index(self, target: Modality) -> VectorIndex:
        return self._indexes[target]

    def content_numbers(self, target: Modality) -> NDArray[np.int32] | None:
        """Shape (images,): equal numbers for images of equal pixels. None for captions."""
        return self._content_numbers if target == "images" else None

    def row_of(self, image_id: str) -> int:
        """The row of the image with this id. Raises InvalidQuery if there is none."""
        row = self._store.row_of(image_id)
        if row is None:
            raise InvalidQuery(f"there is no image {image_id} in this collection")
        return row

    def stored_vector(self, image_id: str) -> Vectors:
        """The unit vector (dim,) of an image of the collection. Raises InvalidQuery if there is none of that id."""
        vector: Vectors = self._indexes["images"].vectors_of(np.array([self.row_of(image_id)]))[0]
        return vector

    def image(self, image_id: str) -> tuple[ImageRecord, list[CaptionRecord]] | None:
        """The record of an image and those of its captions; None if there is no image of that id."""
        row = self._store.row_of(image_id)
        return None if row is None else self._images([row])[0]

    def sample(self, count: int) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        """At most ``count`` images spread over the collection, each with its captions."""
        images = self.manifest.data.images
        return self._images([images * number // count for number in range(count)] if images > count else range(images))

    def image_hits(self, hits: Sequence[Hit]) -> list[ImageHit]:
        """Hits of images with their records."""
        records = self._images([hit.row for hit in hits])
        return [
            ImageHit(hit.rank, hit.score, hit.confidence, image, tuple(captions), hit.duplicates)
            for hit, (image, captions) in zip(hits, records, strict=True)
        ]

    def caption_hits(self, hits: Sequence[Hit]) -> list[CaptionHit]:
        """Hits of captions with their records."""
        captions = self._store.captions([hit.row for hit in hits])
        images = self._store.images([caption.image_row for caption in captions])
        return [
            CaptionHit(hit.rank, hit.score, hit.confidence, caption, image, hit.duplicates)
            for hit, caption, image in zip(hits, captions, images, strict=True)
        ]

    def fragments(self, target: Modality, rows: Sequence[int]) -> list[str]:
        """The records of these rows as JSON, in the order asked; see ``results.py``. The latest are kept."""
        kept = self._fragments[target]
        with self._lock:
            found = {row: fragment for row in rows if (fragment := kept.get(row)) is not None}
        if missing := [row for row in rows if row not in found]:
            if target == "images":
                read = {image.row: image_fragment(image, captions) for image, captions in self._images(missing)}
            else:
                captions = self._store.captions(missing)
                images = self._store.images([caption.image_row for caption in captions])
                read = {c.row: caption_fragment(c, image) for c, image in zip(captions, images, strict=True)}
            with self._lock:
                kept.update(read)
            found |= read
        return [found[row] for row in rows]

    def thumbnail(self, image_id: str, size: Size) -> bytes | None:
        """The WebP of an image; None if there is no image of that id, or no thumbnail of it."""
        row = self._store.row_of(image_id)
        return None if row is None or self._thumbnails is None else self._thumbnails.get(row, size)

    def forget(self) -> None:
        """Drop everything that is kept to answer faster: masks of filters, and records as JSON."""
        self.filters.forget()
        with self._lock:
            for kept in self._fragments.values():
                kept.clear()

    def close(self) -> None:
        """Close the files of records and thumbnails; searches fail from then on."""
        self._store.close()
        if self._thumbnails is not None:
            self._thumbnails.close()
        self._in_use.close()

    def _images(self, rows: Sequence[int]) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        captions = self._store.captions_of(rows)
        return [(image, captions[image.row]) for image in self._store.images(rows)]
