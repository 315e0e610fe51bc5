"""What a search asks of a collection, whether it is one artifact or an artifact with changes.

A collection is one state: immutable, safe from several threads, and equal versions have equal answers. A search takes
it once and asks nothing else until its answer is complete.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.confidence import Curves
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.artifacts.originals import Original
from clip_retrieval.artifacts.thumbnails import Size
from clip_retrieval.artifacts.word_search import Words
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.queries import Sort
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.indexes.base import VectorIndex
from clip_retrieval.records import CaptionRecord, ImageRecord, Modality
from clip_retrieval.search.browse import Rows
from clip_retrieval.search.columns import Mask
from clip_retrieval.search.filters import Wanted
from clip_retrieval.search.hits import CaptionHit, Hit, ImageHit


class EngineElsewhere(Protocol):
    """An engine outside of this process that searches."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with it, as a sentence; None if its last call was answered."""
        ...

    def probe(self) -> None:
        """Ask it for a sign of life. Raises IndexAway."""
        ...


class SearchableCollection(ABC):
    """Records, vectors, indexes, filters and thumbnails under one version.

    Rows of images and of captions are numbered from 0. A row whose image was removed keeps its number and is never
    found.
    """

    @property
    @abstractmethod
    def artifact(self) -> Artifact:
        """The artifact that the collection is made of, or was made of before its changes."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of ``artifact``."""
        return self.artifact.manifest

    @property
    def has_thumbnails(self) -> bool:
        """Whether there are small images for people."""
        return self.artifact.has_thumbnails

    @property
    def has_originals(self) -> bool:
        """Whether the original files of the images are kept."""
        return self.artifact.has_originals

    @property
    @abstractmethod
    def curves(self) -> Curves | None:
        """The share of right answers by cosine; None if an earlier release wrote the artifact."""

    @property
    @abstractmethod
    def words(self) -> Words | None:
        """Which rows have which words; None if an earlier release wrote the artifact."""

    @property
    @abstractmethod
    def version(self) -> str:
        """What caches are keyed by: equal versions have equal answers."""

    @property
    @abstractmethod
    def sequence(self) -> int:
        """The number of the last change that the collection has; 0 if it never changed."""

    @property
    @abstractmethod
    def fields(self) -> list[FieldInfo]:
        """The fields that ``where`` can name."""

    @abstractmethod
    def fields_beside(self, where: Wanted) -> list[FieldInfo]:
        """The same fields, each counted over the images that fulfil the conditions of ``where`` on other fields.

        A condition that names several fields, such as an ``or`` of two, counts for all of them. The latest are kept.
        Raises InvalidQuery as ``allowed`` does.
        """

    @abstractmethod
    def count(self, target: Modality) -> int:
        """How many images or captions can be found."""

    @abstractmethod
    def index(self, target: Modality) -> VectorIndex:
        """The index over all rows of ``target``."""

    @abstractmethod
    def content_numbers(self, target: Modality) -> NDArray[np.int32] | None:
        """Shape (rows,): equal numbers for images of equal pixels. None for captions."""

    @abstractmethod
    def check_where(self, where: Wanted) -> None:
        """Raise InvalidQuery for a field that the collection does not have."""

    @abstractmethod
    def allowed(self, target: Modality, where: Wanted | None) -> Mask | None:
        """The rows that may be found and fulfil ``where``, read-only, shape (rows,); None means every row.

        A caption fulfils what its image fulfils. Raises InvalidQuery for an unknown field, and for a value that a field
        cannot be compared with.
        """

    def searched(self, target: Modality, where: Wanted | None) -> tuple[VectorIndex, Mask | None]:
        """What a search with ``where`` asks, and the rows that it may find; see ``index`` and ``allowed``.

        An engine that filters by itself is told what to filter by.
        """
        return self.index(target), self.allowed(target, where)

    @property
    @abstractmethod
    def engine(self) -> EngineElsewhere | None:
        """What searches outside of this process; None where all searches are done in it."""

    @abstractmethod
    def keeps_mask(self, target: Modality, where: Wanted) -> bool:
        """Whether the mask of these conditions is kept, so that ``allowed`` takes no time."""

    @abstractmethod
    def in_order(self, sort: Sort | None, where: Wanted | None, count: int) -> Rows:
        """At most ``count`` rows of images that fulfil ``where``, in the order of ``sort``; None is that of the ids.

        Images with equal values are in row order, those without a value last. Raises InvalidQuery as ``allowed`` does.
        """

    @abstractmethod
    def find_row(self, image_id: str) -> int | None:
        """The row of the image with this id; None if there is none."""

    @abstractmethod
    def images(self, rows: Sequence[int]) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        """The images of these rows in the order asked, each with its captions."""

    @abstractmethod
    def captions(self, rows: Sequence[int]) -> list[tuple[CaptionRecord, ImageRecord]]:
        """The captions of these rows in the order asked, each with its image."""

    @abstractmethod
    def fragments(self, target: Modality, rows: Sequence[int]) -> list[str]:
        """The records of these rows as JSON, in the order asked; see ``results.py``. The latest are kept."""

    @abstractmethod
    def thumbnail(self, image_id: str, size: Size) -> bytes | None:
        """The WebP of an image; None if there is no image of that id, or no thumbnail of it."""

    @abstractmethod
    def original(self, image_id: str) -> Original | None:
        """The original file of an image; None if there is no image of that id, or no original of it is kept."""

    @abstractmethod
    def sample_rows(self, count: int) -> list[int]:
        """At most ``count`` rows of images that can be found, spread over all of them."""

    @abstractmethod
    def forget(self) -> None:
        """Drop everything that is kept to answer faster: masks of filters, and records as JSON."""

    @abstractmethod
    def close(self) -> None:
        """Close the files of records and thumbnails; searches fail from then on."""

    def row_of(self, image_id: str) -> int:
        """The row of the image with this id. Raises InvalidQuery if there is none."""
        row = self.find_row(image_id)
        if row is None:
            raise InvalidQuery(f"there is no image {image_id} in this collection")
        return row

    def stored_vector(self, image_id: str) -> Vectors:
        """The unit vector (dim,) of an image of the collection. Raises InvalidQuery if there is none of that id."""
        vector: Vectors = self.index("images").vectors_of(np.array([self.row_of(image_id)]))[0]
        return vector

    def image(self, image_id: str) -> tuple[ImageRecord, list[CaptionRecord]] | None:
        """The record of an image and those of its captions; None if there is no image of that id."""
        row = self.find_row(image_id)
        return None if row is None else self.images([row])[0]

    def sample(self, count: int) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        """At most ``count`` images spread over the collection, each with its captions."""
        return self.images(self.sample_rows(count))

    def image_hits(self, hits: Sequence[Hit]) -> list[ImageHit]:
        """Hits of images with their records."""
        records = self.images([hit.row for hit in hits])
        return [
            ImageHit(
                hit.rank, hit.score, hit.confidence, hit.share, image, tuple(captions), hit.duplicates, hit.found_by
            )
            for hit, (image, captions) in zip(hits, records, strict=True)
        ]

    def caption_hits(self, hits: Sequence[Hit]) -> list[CaptionHit]:
        """Hits of captions with their records."""
        records = self.captions([hit.row for hit in hits])
        return [
            CaptionHit(hit.rank, hit.score, hit.confidence, hit.share, caption, image, hit.duplicates, hit.found_by)
            for hit, (caption, image) in zip(hits, records, strict=True)
        ]
