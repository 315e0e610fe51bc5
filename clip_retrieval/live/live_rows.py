"""The rows of one state of a live collection: which there are, and which of them can be found.

Rows of the base come first, then added rows in the order of their changes. A change of an image adds a row and masks
the old one.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from clip_retrieval.artifacts.originals import FilePart
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.live.added import AddedRows
from clip_retrieval.live.change import LiveCaption, LiveImage, LogEntry
from clip_retrieval.live.kept_originals import KeptOriginals
from clip_retrieval.records import MODALITIES, CaptionRecord, ImageRecord, Modality
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.columns import Mask

RENEWED_ROWS = 1024
"""Masked added images are dropped from memory when there are more of them than this, and than of the others."""
EARLIER = -1
"""The generation of rows that no extension has made: they are never the newest."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveRows:
    """Immutable. Only ``extended`` writes to what the states share, and it writes nothing that an older state reads,
    except that thumbnails of images which were changed or removed are dropped."""

    base: Collection
    added: AddedRows
    sequence: int
    live: Mapping[Modality, Mask]
    """The rows that can be found, of shape (all rows of this state,); read-only."""
    masked: Mapping[Modality, int]
    """How many rows are not live."""
    generation: int

    @classmethod
    def of(cls, base: Collection, sequence: int, spool: Path | None, kept_originals: KeptOriginals | None) -> Self:
        """The rows of an artifact without changes; ``spool`` and ``kept_originals`` as in ``AddedRows``."""
        live = {target: np.ones(base.index(target).spec.rows, dtype=np.bool_) for target in MODALITIES}
        return cls(base, AddedRows(base, spool, kept_originals), sequence, live, dict.fromkeys(MODALITIES, 0), 0)

    def count_added(self, target: Modality) -> int:
        """How many rows were added, masked ones included."""
        return len(self.live[target]) - self.added.starts[target]

    def find(self, image_id: str) -> int | None:
        """The row of the image with this id; None if there is none."""
        for spelling in dict.fromkeys((image_id, unicodedata.normalize("NFC", image_id))):
            made = self._made(spelling, self.sequence)
            if made and made[-1] is not None:
                return made[-1]
        row = self.base.find_row(image_id)
        return row if row is not None and self.live["images"][row] else None

    def images(self, rows: Sequence[int]) -> list[tuple[ImageRecord, list[CaptionRecord]]]:
        """The images of these rows in the order asked, each with its captions."""
        start = self.added.starts["images"]
        if not any(row >= start for row in rows):
            return self.base.images(rows)
        old = [row for row in rows if row < start]
        found = dict(zip(old, self.base.images(old), strict=True))
        return [found[row] if row < start else self.added.images[row - start] for row in rows]

    def captions(self, rows: Sequence[int]) -> list[tuple[CaptionRecord, ImageRecord]]:
        """The captions of these rows in the order asked, each with its image."""
        start, first_image = self.added.starts["captions"], self.added.starts["images"]
        if not any(row >= start for row in rows):
            return self.base.captions(rows)
        old = [row for row in rows if row < start]
        found = dict(zip(old, self.base.captions(old), strict=True))
        for row in rows:
            if row >= start:
                caption = self.added.captions[row - start]
                found[row] = (caption, self.added.images[caption.image_row - first_image][0])
        return [found[row] for row in rows]

    def thumbnail(self, row: int) -> Thumbnail | None:
        """The thumbnail of the image in this row, if it has one."""
        if row >= self.added.starts["images"]:
            return self.added.thumbnails.get(row)
        return None if self.base.thumbnails is None else self.base.thumbnails.both(row)

    def original(self, row: int) -> str | None:
        """The hex SHA-256 of the original file of the image in this row; None where none is kept."""
        start = self.added.starts["images"]
        if row >= start:
            return self.added.originals[row - start]
        return None if self.base.originals is None else self.base.originals.hash_of(row)

    def find_original(self, digest: str) -> FilePart | None:
        """Where the original with this hex SHA-256 is: beside the log, in the base, or where a compaction took it."""
        kept, of_base = self.added.kept_originals, self.base.originals
        found = None if kept is None else kept.find(digest)
        if found is None and of_base is not None:
            found = of_base.find(digest)
        return kept.find_compacted(digest) if found is None and kept is not None else found

    def extended(self, entries: Sequence[LogEntry]) -> "LiveRows":
        """The rows after these changes, which are in order and come after ``sequence``.

        The newest state is extended in place, by one thread at a time; from an older one, what was added is copied.
        Raises ValueError, and changes nothing, for vectors of other shapes than the collection's.
        """
        for entry in entries:
            if entry.image is not None:
                self.added.check(entry.image)
        is_newest = self.generation == self.added.generation
        masked = self.count_added("images") - int(np.count_nonzero(self.live["images"][self.added.starts["images"] :]))
        waste = masked > max(RENEWED_ROWS, self.count_added("images") - masked)
        return (self if is_newest and not waste else self._renewed())._with(entries)

    def as_of(self, sequence: int) -> "LiveRows":
        """The rows after the change of this number, if each later one set an image and is in these rows."""
        counts = self.added.count_at(sequence)
        images = self.count_added("images")
        live = {
            target: self.live[target][: self.added.starts[target] + count].copy() for target, count in counts.items()
        }
        for image, _ in self.added.images[counts["images"] : images]:
            row = self._row_at(image.image_id, sequence)
            if row is not None and not live["images"][row]:
                _, captions = self.images([row])[0]
                live["images"][row] = True
                live["captions"][[caption.row for caption in captions]] = True
        masked = {}
        for target, mask in live.items():
            mask.flags.writeable = False
            masked[target] = int(np.count_nonzero(~mask))
        return LiveRows(self.base, self.added, sequence, live, masked, EARLIER)

    def live_image(self, row: int) -> LiveImage:
        """The whole state of the image in this added row."""
        number = row - self.added.starts["images"]
        record, captions = self.added.images[number]
        first = captions[0].row - self.added.starts["captions"] if captions else 0
        return live_image(
            record,
            captions,
            self.added.vectors_of("images", number, number + 1)[0],
            self.added.vectors_of("captions", first, first + len(captions)),
            self.added.thumbnails.get(row),
            self.added.originals[number],
        )

    def _made(self, image_id: str, sequence: int) -> list[int | None]:
        """The rows that the image was given by the changes up to this number."""
        return [row for number, row in self.added.rows_of.get(image_id, ()) if number <= sequence]

    def _row_at(self, image_id: str, sequence: int) -> int | None:
        """The row that the image had after the change of this number."""
        made = self._made(image_id, sequence)
        return made[-1] if made else self.base.find_row(image_id)

    def _with(self, entries: Sequence[LogEntry]) -> "LiveRows":
        masked: dict[Modality, list[int]] = {target: [] for target in MODALITIES}
        for entry in entries:
            if (row := self._newest_row(entry.image_id)) is not None:
                _, captions = self.images([row])[0]
                masked["images"].append(row)
                masked["captions"] += [caption.row for caption in captions]
                self.added.thumbnails.drop(row)
            if entry.image is None:
                self.added.remove(entry.sequence, entry.image_id)
            else:
                self.added.add(entry.sequence, entry.image)
        self.added.generation += 1
        live: dict[Modality, Mask] = {}
        for target, count in self.added.counts.items():
            live[target] = np.ones(self.added.starts[target] + count, dtype=np.bool_)
            live[target][: len(self.live[target])] = self.live[target]
            live[target][masked[target]] = False
            live[target].flags.writeable = False
        counts = {target: self.masked[target] + len(masked[target]) for target in MODALITIES}
        return LiveRows(self.base, self.added, entries[-1].sequence, live, counts, self.added.generation)

    def _newest_row(self, image_id: str) -> int | None:
        """The row that the image has after all changes so far, also those of the extension in progress."""
        made = self.added.rows_of.get(image_id)
        return made[-1][1] if made else self.find(image_id)

    def _renewed(self) -> "LiveRows":
        """The same images with a copy of what was added, without masked rows."""
        starts = self.added.starts
        live = {target: self.live[target][: starts[target]] for target in MODALITIES}
        masked = {target: int(np.count_nonzero(~live[target])) for target in MODALITIES}
        bare = LiveRows(
            self.base, AddedRows(self.base, self.added.spool, self.added.kept_originals), self.sequence, live, masked, 0
        )
        entries = []
        for number in np.flatnonzero(self.live["images"][starts["images"] :]).tolist():
            image = self.live_image(starts["images"] + number)
            entries.append(LogEntry(self.added.sequences[number], image.image_id, image))
        return bare._with(entries) if entries else bare


def live_image(
    image: ImageRecord,
    captions: Sequence[CaptionRecord],
    vector: Vectors,
    caption_vectors: Vectors,
    thumbnail: Thumbnail | None,
    original: str | None,
) -> LiveImage:
    """The whole state of an image from its parts."""
    return LiveImage(
        image_id=image.image_id,
        image_path=image.image_path,
        content_hash=image.content_hash,
        width=image.width,
        height=image.height,
        split=image.split,
        metadata=image.metadata,
        captions=tuple(LiveCaption(caption.caption_id, caption.text) for caption in captions),
        vector=vector,
        caption_vectors=caption_vectors,
        thumbnail=thumbnail,
        original=original,
    )
