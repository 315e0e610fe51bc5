"""A collection and the changes that came after its artifact, as one immutable state.

A change makes a new state, which shares everything with the one before but its masks. The same base and the same latest
change of each image give the same answers in every process, as far as the indexes find the same rows.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.columns import FieldType, StoredColumn
from clip_retrieval.artifacts.confidence import Curves
from clip_retrieval.artifacts.originals import FilePart, Original
from clip_retrieval.artifacts.thumbnails import Size
from clip_retrieval.artifacts.word_search import Words
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.queries import Sort
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.indexes.base import VectorIndex
from clip_retrieval.live.change import LiveImage, LogEntry
from clip_retrieval.live.etag import etag_of
from clip_retrieval.live.frozen import FREEZE_ROWS, Frozen, spread
from clip_retrieval.live.kept_originals import KeptOriginals
from clip_retrieval.live.live_filter import LiveFilter
from clip_retrieval.live.live_index import LiveIndex
from clip_retrieval.live.live_rows import LiveRows, live_image
from clip_retrieval.live.live_words import LiveWords
from clip_retrieval.records import MODALITIES, CaptionRecord, ImageRecord, Modality
from clip_retrieval.search.browse import Rows, first_rows
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.columns import Mask
from clip_retrieval.search.filters import Wanted
from clip_retrieval.search.results import caption_fragment, image_fragment
from clip_retrieval.search.searchable import EngineElsewhere, SearchableCollection


class LiveCollection(SearchableCollection):
    """One state of a collection that changes. Immutable; safe from several threads.

    ``of`` opens the first state, ``with_changes`` makes the next one. ``freeze`` makes searches among many added rows
    quicker; it is slow itself, so it is for a thread in the background.
    """

    def __init__(self, rows: LiveRows, frozen: Frozen, columns: Sequence[StoredColumn]) -> None:
        self._rows, self._frozen, self._stored_columns = rows, frozen, columns
        self.base = rows.base
        sequence = rows.sequence
        self._version = f"{self.base.version}+{sequence}" if sequence > self.base.sequence else self.base.version
        self._counts = {target: rows.count_added(target) for target in MODALITIES}
        self._indexes: dict[Modality, VectorIndex] = {target: self._index(target) for target in MODALITIES}
        caption_images = rows.added.caption_images.first(self._counts["captions"])
        stored, added = self.base.stored_words, rows.added.words
        self._words = None if stored is None or added is None else LiveWords(stored, added, rows.live)
        self._filter = LiveFilter(self.base.filters, columns, rows.added.fields, rows.live, caption_images)

    @classmethod
    def of(
        cls,
        base: Collection,
        *,
        sequence: int | None = None,
        spool: Path | None = None,
        kept_originals: KeptOriginals | None = None,
    ) -> Self:
        """The state without changes. ``sequence`` is that of the last change which ``base`` holds.

        It is what the manifest says, and 0 without, if it is not given. ``spool`` is a folder that may be written, such
        as that of the log: thumbnails of added images are in a file there, without it in memory. ``kept_originals`` has
        the original files of added images, where the log keeps them.
        """
        rows = LiveRows.of(base, base.sequence if sequence is None else sequence, spool, kept_originals)
        return cls(rows, Frozen.none(rows.added), base.artifact.columns())

    def with_changes(self, entries: Sequence[LogEntry]) -> "LiveCollection":
        """The state after these changes, in order; those that this state has already are left out.

        One thread at a time may extend the newest state. An older state can be extended as well, at the cost of a copy
        of what was added. Raises ValueError, and changes nothing, for vectors of other shapes than the collection's.
        """
        new = [entry for entry in entries if entry.sequence > self.sequence]
        if not new:
            return self
        rows = self._rows.extended(new)
        frozen = self._frozen if rows.added is self._rows.added else Frozen.none(rows.added)
        return LiveCollection(rows, frozen, self._stored_columns)

    def as_of(self, sequence: int) -> "LiveCollection":
        """The state after the change of this number, whose rows this state still has.

        That holds if each change after it has set an image, none has removed one, and this state was made from it
        change by change: ``shares_rows_with`` its successor. Takes as long as the changes since are many.
        """
        rows = self._rows.as_of(sequence)
        earlier = LiveCollection(rows, Frozen.none(rows.added), self._stored_columns)
        return earlier.with_frozen(self._frozen)

    def shares_rows_with(self, other: "LiveCollection") -> bool:
        """Whether both are states of the same added rows: a state of others has no way back to an earlier one."""
        return self._rows.added is other._rows.added

    @property
    def needs_freeze(self) -> bool:
        """Whether so many rows were added without an index that ``freeze`` is worth its time."""
        return self._frozen.is_behind(self._counts)

    def freeze(self, *, more_than: int = FREEZE_ROWS) -> Frozen:
        """Index the added rows of this state, if ``more_than`` so many have no index; for ``with_frozen``.

        Takes a few seconds for 10,000 rows of 512 dimensions, in the calling thread, which searches on one core from
        then on.
        """
        queries = {target: self._queries_for(target) for target in MODALITIES}
        return self._frozen.caught_up(self._counts, queries, more_than=more_than)

    def with_frozen(self, frozen: Frozen) -> "LiveCollection":
        """The same state with these indexes, if they are of the same added rows; takes no time.

        The version stays. An index of many added rows may miss one that is found now, within the recall of the others.
        """
        fits = frozen.added is self._rows.added
        if not fits or any(frozen.rows(target) > self._counts[target] for target in MODALITIES):
            return self
        return LiveCollection(self._rows, frozen, self._stored_columns)

    @property
    def added(self) -> int:
        """How many images can be found that the base has not, or in another state."""
        start = self._rows.added.starts["images"]
        return int(np.count_nonzero(self._rows.live["images"][start:]))

    @property
    def removed(self) -> int:
        """How many images of the base were changed or removed."""
        return self._rows.masked["images"] - (self._counts["images"] - self.added)

    @property
    def artifact(self) -> Artifact:
        return self.base.artifact

    @property
    def curves(self) -> Curves | None:
        """Those of the base: neither a change nor a compaction fits them again."""
        return self.base.curves

    @property
    def words(self) -> Words | None:
        return self._words

    @property
    def version(self) -> str:
        """The version of the base, with the number of the last change if there was one after it."""
        return self._version

    @property
    def sequence(self) -> int:
        return self._rows.sequence

    @property
    def fields(self) -> list[FieldInfo]:
        return self._filter.fields

    def fields_beside(self, where: Wanted) -> list[FieldInfo]:
        return self._filter.fields_beside(where)

    @property
    def field_types(self) -> Mapping[str, FieldType]:
        """The type of each field, for ``live_filter.check_metadata``."""
        return self._filter.types

    def has_alone(self, image_id: str, name: str) -> bool:
        """Whether no other image has a value in a field that the base does not have; False without such an image."""
        row = self.find_row(image_id)
        return row is not None and self._filter.has_alone(row, name)

    def count(self, target: Modality) -> int:
        return len(self._rows.live[target]) - self._rows.masked[target]

    def index(self, target: Modality) -> VectorIndex:
        return self._indexes[target]

    def content_numbers(self, target: Modality) -> NDArray[np.int32] | None:
        return self._rows.added.content.first(len(self._rows.live["images"])) if target == "images" else None

    def check_where(self, where: Wanted) -> None:
        self._filter.check(where)

    def allowed(self, target: Modality, where: Wanted | None) -> Mask | None:
        if where:
            return self._filter.mask(where, target)
        return self._rows.live[target] if self._rows.masked[target] else None

    def searched(self, target: Modality, where: Wanted | None) -> tuple[VectorIndex, Mask | None]:
        index, allowed = self._indexes[target], self.allowed(target, where)
        known = self._filter.of_base(where) if where and index.spec.is_elsewhere else {}
        if known:
            base, _ = self.base.searched(target, known)
            index = index.with_base(base) if isinstance(index, LiveIndex) else base
        return index, allowed

    @property
    def engine(self) -> EngineElsewhere | None:
        return self.base.engine

    def keeps_mask(self, target: Modality, where: Wanted) -> bool:
        return self._filter.keeps(where, target)

    def in_order(self, sort: Sort | None, where: Wanted | None, count: int) -> Rows:
        allowed = self.allowed("images", where)
        descending = sort is not None and sort.descending
        if sort is not None and sort.field is not None:
            return first_rows(self._filter.keys(sort.field), allowed, count, descending=descending)
        rows = self.base.rows_by_id[:: -1 if descending else 1]
        rows = (rows if allowed is None else rows[allowed[rows]])[:count]
        added = {image_id: row for image_id, row in self._added_rows.items() if allowed is None or allowed[row]}
        if not added:
            return rows
        ids = dict(zip(self.base.store.ids(rows.tolist()), rows.tolist(), strict=True)) | added
        return np.array([ids[image_id] for image_id in sorted(ids, reverse=descending)[:count]], np.int64)

    def find_row(self, image_id: str) -> int | None:
        return self._rows.find(image_id)

    def images(self, rows: Sequence[int]) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        return self._rows.images(rows)

    def captions(self, rows: Sequence[int]) -> list[tuple[CaptionRecord, ImageRecord]]:
        return self._rows.captions(rows)

    def fragments(self, target: Modality, rows: Sequence[int]) -> list[str]:
        def read(missing: list[int]) -> dict[int, str]:
            if target == "images":
                return {image.row: image_fragment(image, captions) for image, captions in self.images(missing)}
            return {caption.row: caption_fragment(caption, image) for caption, image in self.captions(missing)}

        start = self._rows.added.starts[target]
        new = [row for row in rows if row >= start]
        if not new:
            return self.base.fragments(target, rows)
        old = [row for row in rows if row < start]
        found = dict(zip(old, self.base.fragments(target, old), strict=True))
        found |= zip(new, self._rows.added.fragments.of(target, new, read), strict=True)
        return [found[row] for row in rows]

    def thumbnail(self, image_id: str, size: Size) -> bytes | None:
        row = self.find_row(image_id)
        thumbnail = None if row is None else self._rows.thumbnail(row)
        if thumbnail is None:
            return None
        return thumbnail.large if size == "large" and thumbnail.large is not None else thumbnail.small

    def thumbnail_of_row(self, row: int) -> Thumbnail | None:
        """The whole thumbnail of the image in this row, if it has one."""
        return self._rows.thumbnail(row)

    def original(self, image_id: str) -> Original | None:
        row = self.find_row(image_id)
        digest = None if row is None else self._rows.original(row)
        part = None if digest is None else self._rows.find_original(digest)
        return None if digest is None or part is None else Original(digest, part)

    def original_of_row(self, row: int) -> str | None:
        """The hex SHA-256 of the original file of the image in this row; None where none is kept."""
        return self._rows.original(row)

    def find_original(self, digest: str) -> FilePart | None:
        """Where the original with this hex SHA-256 is; None if it is nowhere."""
        return self._rows.find_original(digest)

    def live_rows(self, target: Modality) -> NDArray[np.int64]:
        """The rows that can be found, in order: shape (count(target),)."""
        return np.flatnonzero(self._rows.live[target])

    def sample_rows(self, count: int) -> list[int]:
        live: list[int] = self.live_rows("images").tolist()
        return [live[len(live) * number // count] for number in range(count)] if len(live) > count else live

    def get(self, image_id: str) -> LiveImage | None:
        """The whole state of an image, with vectors and thumbnail; None if there is no image of that id."""
        row = self.find_row(image_id)
        if row is None:
            return None
        [(image, captions)] = self.images([row])
        vectors = self.index("images").vectors_of(np.array([row]))
        caption_vectors = self.index("captions").vectors_of(np.array([caption.row for caption in captions], np.int64))
        return live_image(
            image, captions, vectors[0], caption_vectors, self._rows.thumbnail(row), self._rows.original(row)
        )

    def etag(self, image_id: str) -> str | None:
        """The name of an image's state; see ``etag.py``. None if there is no image of that id."""
        found = self.image(image_id)
        return None if found is None else etag_of(*found)

    def page_of_ids(self, after: str | None, limit: int) -> list[str]:
        """The next ``limit`` ids of images behind ``after``, which need not exist, in order of code points."""
        live = self._rows.live["images"]
        ids: list[str] = []
        last = after
        while len(ids) < limit and (block := self.base.store.ids_after(last, limit)):
            ids += [image_id for image_id, row in block if live[row]]
            last = block[-1][0]
        start = 0 if after is None else bisect_right(self._added_ids, after)
        return sorted([*ids[:limit], *self._added_ids[start : start + limit]])[:limit]

    def forget(self) -> None:
        self.base.forget()
        self._filter.forget()
        self._rows.added.fragments.forget()

    def close(self) -> None:
        """Close the base, and with it every other state of the collection."""
        self.base.close()

    @cached_property
    def _added_ids(self) -> list[str]:
        return sorted(self._added_rows)

    @cached_property
    def _added_rows(self) -> dict[str, int]:
        """The row of each added image that can be found, by its id."""
        start = self._rows.added.starts["images"]
        live = np.flatnonzero(self._rows.live["images"][start:]).tolist()
        return {self._rows.added.images[number][0].image_id: start + number for number in live}

    def _index(self, target: Modality) -> VectorIndex:
        if not self._counts[target] and not self._rows.masked[target]:
            return self.base.index(target)
        parts = (self.base.index(target), *self._frozen.with_tail(target, self._counts[target]))
        return LiveIndex(parts, self._rows.live[target] if self._rows.masked[target] else None)

    def _queries_for(self, target: Modality) -> Vectors:
        """Vectors of the other modality, spread over all rows; of the same one if the other has none."""
        other: Modality = "captions" if target == "images" else "images"
        index = self.index(other if len(self._rows.live[other]) else target)
        return index.vectors_of(spread(index.spec.rows))
