"""The records of a collection in SQLite, joined to the vectors by row number.

Row *i* of the image vectors is ``images.row = i``; row *i* of the caption vectors is ``captions.row = i``: rows are
given by the caller in order from 0, and ``check`` holds that there is no gap. The schema is made by numbered
migrations; ``PRAGMA user_version`` says how many have run.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from clip_retrieval.errors import ArtifactDamaged, ArtifactSchema
from clip_retrieval.records import CaptionRecord, ImageRecord, Scalar, Split

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE images (
        row INTEGER PRIMARY KEY,
        image_id TEXT NOT NULL UNIQUE,
        image_path TEXT NOT NULL,
        content_hash TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        split TEXT NOT NULL CHECK (split IN ('train', 'val', 'test')),
        metadata TEXT NOT NULL
    ) STRICT;
    CREATE TABLE captions (
        row INTEGER PRIMARY KEY,
        caption_id TEXT NOT NULL UNIQUE,
        image_row INTEGER NOT NULL REFERENCES images (row),
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX captions_of_image ON captions (image_row, row);
    """,
)


class Store:
    """Records of one collection. Reads are safe from several threads; writing is for one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new, empty store in the file ``path``, which must not exist."""
        if path.exists():
            raise FileExistsError(path)
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection)
        return cls(connection)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a finished store for reading.

        Raises ArtifactDamaged when it is not a database of this kind, ArtifactSchema when a newer version wrote it.
        """
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise ArtifactDamaged(f"{path.name} is not a readable record store ({error}); build it again") from error
        if version != len(MIGRATIONS):
            connection.close()
            raise ArtifactSchema(
                f"{path.name} has schema version {version}, this release reads {len(MIGRATIONS)}; build it again"
            )
        return cls(connection)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, images: Iterable[ImageRecord], captions: Iterable[CaptionRecord]) -> None:
        """Insert records in one transaction; on any error none of them is kept."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        i.row,
                        i.image_id,
                        i.image_path,
                        i.content_hash,
                        i.width,
                        i.height,
                        i.split,
                        _dump(i.metadata),
                    )
                    for i in images
                ),
            )
            self._connection.executemany(
                "INSERT INTO captions VALUES (?, ?, ?, ?)",
                ((c.row, c.caption_id, c.image_row, c.text) for c in captions),
            )

    def counts(self) -> tuple[int, int]:
        """How many images and captions there are."""
        ((images,),) = self._query("SELECT count(*) FROM images")
        ((captions,),) = self._query("SELECT count(*) FROM captions")
        return images, captions

    def check(self) -> None:
        """Raise ArtifactDamaged unless the rows of both tables run from 0 without a gap."""
        for table in ("images", "captions"):
            # Apart, each is read off an index; together they would read every record.
            ((count, low, high),) = self._query(
                f"SELECT (SELECT count(*) FROM {table}), (SELECT min(row) FROM {table}), (SELECT max(row) FROM {table})"
            )
            if count and (low != 0 or high != count - 1):
                raise ArtifactDamaged(f"the rows of {table} have gaps, so vectors and records do not match")

    def images(self, rows: Sequence[int] | None = None) -> list[ImageRecord]:
        """The images of these rows, in their order (repeats allowed); all in row order when None."""
        found = {row[0]: _image(row) for row in self._select("SELECT * FROM images", "row", rows)}
        return [found[row] for row in (found if rows is None else rows)]

    def captions(self, rows: Sequence[int] | None = None) -> list[CaptionRecord]:
        """The captions of these rows, in their order (repeats allowed); all in row order when None."""
        found = {row[0]: CaptionRecord(*row) for row in self._select("SELECT * FROM captions", "row", rows)}
        return [found[row] for row in (found if rows is None else rows)]

    def captions_of(self, image_rows: Sequence[int]) -> dict[int, list[CaptionRecord]]:
        """The captions of each of these images, by image row, in row order; every asked row has an entry."""
        result: dict[int, list[CaptionRecord]] = {row: [] for row in image_rows}
        for row in self._select("SELECT * FROM captions", "image_row", image_rows):
            caption = CaptionRecord(*row)
            result[caption.image_row].append(caption)
        return result

    def images_named(self, image_ids: Sequence[str]) -> dict[str, ImageRecord]:
        """The images with these ids, by id; an id that no image has is not in it."""
        found = (_image(row) for row in self._select("SELECT * FROM images", "image_id", image_ids))
        return {image.image_id: image for image in found}

    def row_of(self, image_id: str) -> int | None:
        """The row of the image with this id; None if there is none. Reads an index alone, no record."""
        rows = self._query("SELECT row FROM images WHERE image_id = ?", (image_id,))
        return rows[0][0] if rows else None

    def facts(self) -> Iterator[tuple[Split, dict[str, Scalar]]]:
        """Split and metadata of every image, in row order."""
        for split, metadata in self._query("SELECT split, metadata FROM images ORDER BY row"):
            yield split, json.loads(metadata)

    def content_hashes(self) -> list[str]:
        """The content hash of every image, in row order."""
        return [content_hash for (content_hash,) in self._query("SELECT content_hash FROM images ORDER BY row")]

    def caption_owners(self) -> list[int]:
        """The image row of every caption, in row order."""
        return [owner for (owner,) in self._query("SELECT image_row FROM captions ORDER BY row")]

    def _select(self, select: str, column: str, values: Sequence[int | str] | None) -> Iterator[tuple[Any, ...]]:
        if values is None:
            yield from self._query(f"{select} ORDER BY row")
            return
        distinct = list(dict.fromkeys(values))
        for start in range(0, len(distinct), 500):  # SQLite bounds the number of parameters of a statement
            part = distinct[start : start + 500]
            marks = ",".join("?" * len(part))
            yield from self._query(f"{select} WHERE {column} IN ({marks}) ORDER BY row", part)

    def _query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._connection.execute(sql, parameters)) as cursor:
            return cursor.fetchall()


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


def _image(row: tuple[Any, ...]) -> ImageRecord:
    number, image_id, image_path, content_hash, width, height, split, metadata = row
    return ImageRecord(number, image_id, image_path, content_hash, width, height, split, json.loads(metadata))


def _dump(metadata: Mapping[str, Scalar]) -> str:
    return json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True)
