"""What was added to a collection since its base was made: rows that only grow, shared by all states of the collection.

A changed image is an added row as well. Its old row is not touched, so a state that still has it stays right.
"""

from bisect import bisect_left, bisect_right
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.live.added_fields import AddedFields
from clip_retrieval.live.added_words import AddedWords
from clip_retrieval.live.change import LiveImage
from clip_retrieval.live.growing import GrowingArray
from clip_retrieval.live.kept_originals import KeptOriginals
from clip_retrieval.live.thumbnail_spool import ThumbnailSpool
from clip_retrieval.records import CaptionRecord, ImageRecord, Modality
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.fragments import FragmentCache

HASHES_KEPT = 8192
"""Content hashes of the base that are kept: the first steps of every look-up read the same ones."""


class AddedRows:
    """Records, vectors, fields and thumbnails of added rows. One thread at a time may add.

    Any thread may read rows that were there before. The first added image has the row after the last of the base, and
    so has the first added caption.
    """

    def __init__(
        self, base: Collection, spool: Path | None = None, kept_originals: KeptOriginals | None = None
    ) -> None:
        """``spool`` is a folder for thumbnails; without it they are in memory. ``kept_originals`` has the originals."""
        dim = base.manifest.encoder.dim
        self.starts: dict[Modality, int] = {target: base.index(target).spec.rows for target in ("images", "captions")}
        self.vectors = {target: GrowingArray(np.float32, (dim,)) for target in self.starts}
        self.images: list[tuple[ImageRecord, list[CaptionRecord]]] = []
        self.captions: list[CaptionRecord] = []
        self.caption_images = GrowingArray(np.int32)
        """The number among the added images of the image of each added caption."""
        self.content = _ContentNumbers(base)
        self.fields = AddedFields()
        stored = base.stored_words
        types = {field.name: field.type for field in base.fields}
        self.words = None if stored is None else AddedWords(stored.columns, types)
        """None where the base has none."""
        self.fragments = FragmentCache()
        self.rows_of: dict[str, list[tuple[int, int | None]]] = {}
        """By image id: the number of each change, and the row that it made; None for a removal."""
        self.sequences: list[int] = []
        """The number of the change that made each added image."""
        self.thumbnails = ThumbnailSpool(spool)
        """By row of the image, until it is changed or removed."""
        self.originals: list[str | None] = []
        """The hash of the original of each added image."""
        self.kept_originals = kept_originals
        self.spool = spool
        self.generation = 0
        """How often rows were added or masked: the newest state is that of this generation."""
        self._dim = dim

    @property
    def counts(self) -> dict[Modality, int]:
        """How many rows of each kind were added, those that are masked included."""
        return {"images": len(self.images), "captions": len(self.captions)}

    def check(self, image: LiveImage) -> None:
        """Raise ValueError unless the vectors have the shapes of this collection."""
        wanted = ((self._dim,), (len(image.captions), self._dim))
        if (given := (image.vector.shape, image.caption_vectors.shape)) != wanted:
            raise ValueError(f"{image.image_id} has vectors of shapes {given}, the collection takes {wanted}")

    def add(self, sequence: int, image: LiveImage) -> int:
        """Add the state of an image, whose vectors were checked; returns its row."""
        number, row = len(self.images), self.starts["images"] + len(self.images)
        first = self.starts["captions"] + len(self.captions)
        captions = [
            CaptionRecord(place, caption.caption_id, row, caption.text)
            for place, caption in enumerate(image.captions, start=first)
        ]
        self.vectors["images"].append(image.vector[None])
        self.vectors["captions"].append(image.caption_vectors)
        self.caption_images.append(np.full(len(captions), number, np.int32))
        self.content.add(image.content_hash)
        self.fields.add(image.split, image.metadata)
        self.captions += captions
        record = ImageRecord(
            row,
            image.image_id,
            image.image_path,
            image.content_hash,
            image.width,
            image.height,
            image.split,
            dict(sorted(image.metadata.items())),  # the order in which the records of a base have them
        )
        if image.thumbnail is not None:
            self.thumbnails.put(row, image.thumbnail)
        if self.words is not None:
            self.words.add(record, captions)
        self.originals.append(image.original)
        self.images.append((record, captions))
        self.sequences.append(sequence)
        self.rows_of.setdefault(image.image_id, []).append((sequence, row))
        return row

    def count_at(self, sequence: int) -> dict[Modality, int]:
        """How many rows of each kind had been added after the change of this number."""
        images = bisect_right(self.sequences, sequence)
        captions = np.searchsorted(self.caption_images.first(len(self.captions)), images)
        return {"images": images, "captions": int(captions)}

    def remove(self, sequence: int, image_id: str) -> None:
        """Note that an image has no row from this change on."""
        self.rows_of.setdefault(image_id, []).append((sequence, None))

    def vectors_of(self, target: Modality, start: int, stop: int) -> Vectors:
        """The vectors of the added rows from number ``start`` to ``stop``, a view: float32 (stop - start, dim)."""
        vectors: Vectors = self.vectors[target].first(stop)[start:]
        return vectors


class _ContentNumbers:
    """A number for the pixels of every image: equal pixels have equal numbers, also in the base."""

    def __init__(self, base: Collection) -> None:
        numbers = base.content_numbers("images")
        assert numbers is not None, "images have content numbers"
        self._base = numbers
        self._hash_of_row = lru_cache(HASHES_KEPT)(base.store.content_hash)
        self._new: dict[str, int] = {}
        self._distinct = int(numbers.max(initial=-1)) + 1
        self._numbers = GrowingArray(np.int32)
        self._numbers.append(numbers)

    def add(self, content_hash: str) -> None:
        """Number the next row."""
        number = self._known(content_hash)
        if number is None:
            number = self._new.setdefault(content_hash, self._distinct + len(self._new))
        self._numbers.append(np.array([number], np.int32))

    def first(self, rows: int) -> NDArray[np.int32]:
        """The numbers of the first ``rows`` rows, base included."""
        numbers: NDArray[np.int32] = self._numbers.first(rows)
        return numbers

    @cached_property
    def _rows(self) -> NDArray[np.int32]:
        """A row of the base for each number."""
        rows = np.empty(self._distinct, np.int32)
        rows[self._base] = np.arange(len(self._base), dtype=np.int32)
        return rows

    def _known(self, content_hash: str) -> int | None:
        """The number that the base gives these pixels. Numbers of the base are in the order of the hashes."""
        number = bisect_left(range(self._distinct), content_hash, key=self._hash)
        return number if number < self._distinct and self._hash(number) == content_hash else None

    def _hash(self, number: int) -> str:
        return self._hash_of_row(int(self._rows[number]))
