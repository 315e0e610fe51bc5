"""Records, vectors, indexes, filters and thumbnails of one artifact, under its version.

A collection is what a server swaps, and what caches are keyed by. It is immutable, and safe from several threads.
"""

import weakref
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.confidence import Curves
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.originals import Original
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.thumbnails import Size, Thumbnails
from clip_retrieval.artifacts.word_search import BaseWords, Words
from clip_retrieval.artifacts.words import StoredWords
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.queries import Sort
from clip_retrieval.indexes.base import VectorIndex
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.records import CaptionRecord, ImageRecord, Modality
from clip_retrieval.search.browse import Rows, first_rows
from clip_retrieval.search.columns import Mask
from clip_retrieval.search.expressions import expression_of
from clip_retrieval.search.field_counts import KeptCounts, fields_beside
from clip_retrieval.search.filters import RowFilter, Wanted
from clip_retrieval.search.fragments import FragmentCache
from clip_retrieval.search.results import caption_fragment, image_fragment
from clip_retrieval.search.searchable import EngineElsewhere, SearchableCollection


class Collection(SearchableCollection):
    """One artifact, open for searching."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactDamaged when a file of the artifact cannot be read, ArtifactNotFound when it is gone."""
        self._artifact = artifact
        self._in_use = InUse(artifact.path)  # no clean-up deletes it meanwhile
        self.store = artifact.store()
        self._indexes: dict[Modality, VectorIndex] = {
            "images": artifact.index("images"),
            "captions": artifact.index("captions"),
        }
        self._content_numbers = artifact.content_numbers()
        self._columns = artifact.columns()
        self._curves = artifact.curves()
        self.filters = RowFilter(self._columns, artifact.caption_image_rows())
        self._counts = KeptCounts()
        self._fragments = FragmentCache()
        self.thumbnails = artifact.thumbnails()
        self.stored_words = artifact.words()
        self._words = None if self.stored_words is None else BaseWords(self.stored_words)
        self.originals = artifact.originals()
        # A server exchanges collections; one is closed when the last request that began with it is done.
        self._finalizer = weakref.finalize(self, _close, self.store, self.thumbnails, self.stored_words, self._in_use)

    @property
    def artifact(self) -> Artifact:
        return self._artifact

    @property
    def curves(self) -> Curves | None:
        return self._curves

    @property
    def words(self) -> Words | None:
        return self._words

    @property
    def version(self) -> str:
        """The version of the artifact: equal versions have equal answers."""
        return self.manifest.version

    @property
    def sequence(self) -> int:
        return self.manifest.sequence or 0

    @property
    def fields(self) -> list[FieldInfo]:
        return self.filters.fields

    def fields_beside(self, where: Wanted) -> list[FieldInfo]:
        return self._counts.get(where, lambda: self._fields_beside(where))

    def _fields_beside(self, where: Wanted) -> list[FieldInfo]:
        self.check_where(where)
        return fields_beside(self._columns, where, lambda part: self.filters.mask(part, "images"))

    def count(self, target: Modality) -> int:
        return self._indexes[target].spec.rows

    def index(self, target: Modality) -> VectorIndex:
        return self._indexes[target]

    def content_numbers(self, target: Modality) -> NDArray[np.int32] | None:
        return self._content_numbers if target == "images" else None

    def check_where(self, where: Wanted) -> None:
        self.filters.check(where)

    def allowed(self, target: Modality, where: Wanted | None) -> Mask | None:
        return self.filters.mask(where, target) if where else None

    def searched(self, target: Modality, where: Wanted | None) -> tuple[VectorIndex, Mask | None]:
        index, allowed = self._indexes[target], self.allowed(target, where)
        if where and allowed is not None and isinstance(index, MilvusIndex):
            index = index.filtered_by(expression_of(self._columns, where), int(np.count_nonzero(allowed)))
        return index, allowed

    @property
    def engine(self) -> EngineElsewhere | None:
        index = self._indexes["images"]
        return index if isinstance(index, MilvusIndex) else None

    def keeps_mask(self, target: Modality, where: Wanted) -> bool:
        return self.filters.keeps(where, target)

    def in_order(self, sort: Sort | None, where: Wanted | None, count: int) -> Rows:
        allowed = self.allowed("images", where)
        if sort is not None and sort.field is not None:
            return first_rows(self.filters.keys(sort.field), allowed, count, descending=sort.descending)
        rows = self.rows_by_id[:: -1 if sort is not None and sort.descending else 1]
        return (rows if allowed is None else rows[allowed[rows]])[:count]

    @cached_property
    def rows_by_id(self) -> Rows:
        """The rows of all images in the order of their ids, by code points."""
        return np.fromiter(self.store.rows_by_id(), np.int64, self.count("images"))

    def find_row(self, image_id: str) -> int | None:
        return self.store.row_of(image_id)

    def images(self, rows: Sequence[int]) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        captions = self.store.captions_of(rows)
        return [(image, captions[image.row]) for image in self.store.images(rows)]

    def captions(self, rows: Sequence[int]) -> list[tuple[CaptionRecord, ImageRecord]]:
        captions = self.store.captions(rows)
        return list(zip(captions, self.store.images([caption.image_row for caption in captions]), strict=True))

    def fragments(self, target: Modality, rows: Sequence[int]) -> list[str]:
        def read(missing: list[int]) -> dict[int, str]:
            if target == "images":
                return {image.row: image_fragment(image, captions) for image, captions in self.images(missing)}
            return {caption.row: caption_fragment(caption, image) for caption, image in self.captions(missing)}

        return self._fragments.of(target, rows, read)

    def thumbnail(self, image_id: str, size: Size) -> bytes | None:
        row = self.store.row_of(image_id)
        return None if row is None or self.thumbnails is None else self.thumbnails.get(row, size)

    def original(self, image_id: str) -> Original | None:
        row = self.store.row_of(image_id)
        digest = None if row is None or self.originals is None else self.originals.hash_of(row)
        part = None if digest is None or self.originals is None else self.originals.find(digest)
        return None if digest is None or part is None else Original(digest, part)

    def sample_rows(self, count: int) -> list[int]:
        images = self.count("images")
        return [images * number // count for number in range(count)] if images > count else list(range(images))

    def forget(self) -> None:
        self.filters.forget()
        self._counts.forget()
        self._fragments.forget()

    def close(self) -> None:
        """Close the files of records and thumbnails; searches fail from then on."""
        self._finalizer()


def _close(store: RecordStore, thumbnails: Thumbnails | None, words: StoredWords | None, in_use: InUse) -> None:
    store.close()
    if words is not None:
        words.close()
    if thumbnails is not None:
        thumbnails.close()
    in_use.close()
