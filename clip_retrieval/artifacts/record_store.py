"""The records of a collection in SQLite, joined to the vectors by row number.

Row *i* of the image vectors is ``images.row = i``; row *i* of the caption vectors is ``captions.row = i``. The caller
numbers the rows in order from 0, and ``check`` finds gaps. Numbered migrations make the schema; ``PRAGMA user_version``
is the number of those that have run.
"""

import json
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from clip_retrieval.errors import ArtifactDamaged, ArtifactSchema
from clip_retrieval.records import CaptionRecord, ImageRecord, Scalar, Split

BLOCK_ROWS = 10_000
"""Rows that are read at a time where all rows are read."""
MAPPED_BYTES = 2**40
"""The most of a file that is mapped; SQLite has a limit of its own, 2 GB (https://www.sqlite.org/mmap.html). What is
read and not mapped would be copied, and a page that one request reads twice would count as one that is much used."""

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
    "ALTER TABLE captions ADD COLUMN language TEXT;",
)
OLDEST_READ = 1
"""The oldest schema version that is read as it is: its captions have no language."""


class RecordStore:
    """Records of one collection. Any thread may read; one thread at a time may write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new, empty store in the file ``path``. Raises FileExistsError."""
        if path.exists():
            raise FileExistsError(path)
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection)
        return cls(connection)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a finished store for reading.

        Raises ArtifactDamaged when the file is not such a database, ArtifactSchema when another version wrote it.
        """
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise ArtifactDamaged(f"{path.name} is not a readable record store ({error}); build it again") from error
        if not OLDEST_READ <= version <= len(MIGRATIONS):
            connection.close()
            raise ArtifactSchema(
                f"{path.name} has schema version {version}, this release reads {OLDEST_READ} to {len(MIGRATIONS)}; "
                "build it again"
            )
        return cls(connection)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, images: Iterable[ImageRecord], captions: Iterable[CaptionRecord]) -> None:
        """Insert records in one transaction: all of them, or none when there is an error."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (i.row, i.image_id, i.image_path, i.content_hash, i.width, i.height, i.split, _dump(i.metadata))
                    for i in images
                ),
            )
            self._connection.executemany(
                "INSERT INTO captions VALUES (?, ?, ?, ?, ?)",
                ((c.row, c.caption_id, c.image_row, c.text, c.language) for c in captions),
            )

    def counts(self) -> tuple[int, int]:
        """How many images and captions there are. The time grows with them; see ``row_ends``."""
        ((images,),) = self._query("SELECT count(*) FROM images")
        ((captions,),) = self._query("SELECT count(*) FROM captions")
        return images, captions

    def row_ends(self) -> tuple[int, int]:
        """One more than the last row of images and of captions; without gaps, how many there are. Takes no scan."""
        ((images,),) = self._query("SELECT coalesce(max(row) + 1, 0) FROM images")
        ((captions,),) = self._query("SELECT coalesce(max(row) + 1, 0) FROM captions")
        return images, captions

    def check(self) -> None:
        """Raise ArtifactDamaged unless the rows of both tables run from 0 without a gap. The time grows with them."""
        for table in ("images", "captions"):
            # Three statements, each answered by an index; one statement would read every record.
            ((count, low, high),) = self._query(
                f"SELECT (SELECT count(*) FROM {table}), (SELECT min(row) FROM {table}), (SELECT max(row) FROM {table})"
            )
            if count and (low != 0 or high != count - 1):
                raise ArtifactDamaged(f"the rows of {table} have gaps, so vectors and records do not match")

    def images(self, rows: Sequence[int] | None = None) -> list[ImageRecord]:
        """The images of these rows, in the order of ``rows``, which may repeat; None means all, in row order.

        Raises KeyError for a row that does not exist.
        """
        found = {row[0]: _image(row) for row in self._select("SELECT * FROM images", "row", rows)}
        return [found[row] for row in (found if rows is None else rows)]

    def captions(self, rows: Sequence[int] | None = None) -> list[CaptionRecord]:
        """The captions of these rows, in the order of ``rows``, which may repeat; None means all, in row order.

        Raises KeyError for a row that does not exist.
        """
        found = {row[0]: CaptionRecord(*row) for row in self._select("SELECT * FROM captions", "row", rows)}
        return [found[row] for row in (found if rows is None else rows)]

    def captions_of(self, image_rows: Sequence[int]) -> dict[int, list[CaptionRecord]]:
        """The captions of each of these images, by image row, in row order; an image without captions has []."""
        result: dict[int, list[CaptionRecord]] = {row: [] for row in image_rows}
        for row in self._select("SELECT * FROM captions", "image_row", image_rows):
            caption = CaptionRecord(*row)
            result[caption.image_row].append(caption)
        return result

    def row_of(self, image_id: str) -> int | None:
        """The row of the image with this id; None if there is none. Reads an index alone, no record.

        Readers give ids in Unicode's form NFC; an id in another form is found too.
        """
        for spelling in dict.fromkeys((image_id, unicodedata.normalize("NFC", image_id))):
            if rows := self._query("SELECT row FROM images WHERE image_id = ?", (spelling,)):
                row: int = rows[0][0]
                return row
        return None

    def content_hash(self, row: int) -> str:
        """The content hash of the image in this row. Raises KeyError for a row that does not exist."""
        for (found,) in self._query("SELECT content_hash FROM images WHERE row = ?", (row,)):
            return str(found)
        raise KeyError(row)

    def ids_after(self, image_id: str | None, limit: int) -> list[tuple[str, int]]:
        """At most ``limit`` ids, with their rows, that come after this one in order of code points; None: the first."""
        after = "" if image_id is None else "WHERE image_id > ?"
        parameters = (limit,) if image_id is None else (image_id, limit)
        return self._query(f"SELECT image_id, row FROM images {after} ORDER BY image_id LIMIT ?", parameters)

    def ids(self, rows: Sequence[int]) -> list[str]:
        """The ids of the images in these rows, in the order asked. Raises KeyError for a row that does not exist."""
        found = dict(self._select("SELECT row, image_id FROM images", "row", rows))
        return [found[row] for row in rows]

    def rows_by_id(self) -> Iterator[int]:
        """The row of every image, in the order of their ids by code points, read in blocks."""
        for (row,) in self._stream("SELECT row FROM images ORDER BY image_id"):
            yield row

    def splits_and_metadata(self) -> Iterator[tuple[Split, dict[str, Scalar]]]:
        """Split and metadata of every image, in row order, read in blocks."""
        for split, metadata in self._stream("SELECT split, metadata FROM images ORDER BY row"):
            yield split, json.loads(metadata)

    def rows_by_content(self) -> Iterator[tuple[int, str]]:
        """Row and content hash of every image, ordered by the hash, read in blocks."""
        yield from self._stream("SELECT row, content_hash FROM images ORDER BY content_hash, row")

    def caption_image_rows(self) -> Iterator[int]:
        """The image row of every caption, in row order, read in blocks."""
        for (image_row,) in self._stream("SELECT image_row FROM captions ORDER BY row"):
            yield image_row

    def _select(self, select: str, column: str, values: Sequence[int | str] | None) -> Iterator[tuple[Any, ...]]:
        if values is None:
            yield from self._query(f"{select} ORDER BY row")
            return
        distinct = list(dict.fromkeys(values))
        for start in range(0, len(distinct), 500):  # SQLite limits the number of parameters of a statement
            part = distinct[start : start + 500]
            marks = ",".join("?" * len(part))
            yield from self._query(f"{select} WHERE {column} IN ({marks}) ORDER BY row", part)

    def _stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a statement, ``BLOCK_ROWS`` at a time."""
        with closing(self._connection.cursor()) as cursor:
            with self._lock:
                cursor.execute(sql)
            while True:
                with self._lock:
                    block = cursor.fetchmany(BLOCK_ROWS)
                if not block:
                    return
                yield from block

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
