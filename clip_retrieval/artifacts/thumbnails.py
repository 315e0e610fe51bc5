"""The thumbnails of a collection in one SQLite file, joined to the records by row number.

plan     how the thumbnails were made
small    a WebP by row; a row without one is an image that was added without a thumbnail
large    a WebP by row, for the images that are longer than a small thumbnail
"""

import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Literal, Self

from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.images.shrink import Plan, Thumbnail

Size = Literal["small", "large"]
FORMAT = 2
"""Raise it when the same image gives other bytes. It is part of an artifact's version, and each file names its own."""

_PAGE_BYTES = 4096
_ROWS_PER_TRANSACTION = 64
_SCHEMA = """
    CREATE TABLE plan (small INTEGER NOT NULL, large INTEGER, quality INTEGER NOT NULL) STRICT;
    CREATE TABLE small (row INTEGER PRIMARY KEY, webp BLOB NOT NULL) STRICT;
    CREATE TABLE large (row INTEGER PRIMARY KEY, webp BLOB NOT NULL) STRICT;
"""


def write_thumbnails(
    thumbnails: Iterable[Thumbnail | None], plan: Plan, out: Path, budget: int, *, made_as: int = FORMAT
) -> bool:
    """Write the thumbnails, in the order of the rows, to the new file ``out`` of at most ``budget`` bytes.

    None is an image without a thumbnail. ``made_as`` is the lowest ``FORMAT`` that any of them was made as.

    The same thumbnails give the same file. Returns False, and leaves no file, if they do not fit. A file that an
    earlier run left unfinished is replaced.
    """
    out.unlink(missing_ok=True)
    with closing(sqlite3.connect(out)) as connection:
        connection.executescript(f"PRAGMA page_size = {_PAGE_BYTES}")
        # A file that is not complete is of no use, so it needs no journal and no wait for the disk.
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        connection.executescript(_SCHEMA)
        connection.executescript(f"PRAGMA user_version = {made_as}")
        connection.execute("INSERT INTO plan VALUES (?, ?, ?)", (plan.small, plan.large, plan.quality))
        connection.commit()
        fits = _insert(connection, thumbnails, budget)
    if not fits:
        out.unlink()
    return fits


def _insert(connection: sqlite3.Connection, thumbnails: Iterable[Thumbnail | None], budget: int) -> bool:
    rows = ((row, made) for row, made in enumerate(thumbnails) if made is not None)
    while batch := list(islice(rows, _ROWS_PER_TRANSACTION)):
        with connection:
            connection.executemany("INSERT INTO small VALUES (?, ?)", ((row, made.small) for row, made in batch))
            large = ((row, made.large) for row, made in batch if made.large is not None)
            connection.executemany("INSERT INTO large VALUES (?, ?)", large)
        ((pages,),) = connection.execute("PRAGMA page_count")
        if pages * _PAGE_BYTES > budget:
            return False
    return True


class Thumbnails:
    """A finished file of thumbnails. Reading is safe in any thread."""

    def __init__(self, connection: sqlite3.Connection, plan: Plan, made_as: int) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.plan = plan
        self.made_as = made_as
        """The lowest ``FORMAT`` of a thumbnail in the file; files that name none are from before 2."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file for reading. Raises ArtifactDamaged if ``path`` is not a file of thumbnails."""
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            plan = Plan(*connection.execute("SELECT small, large, quality FROM plan").fetchone())
            ((made_as,),) = connection.execute("PRAGMA user_version")
        except (sqlite3.Error, TypeError) as error:
            raise ArtifactDamaged(
                f"{path.name} is not a readable file of thumbnails ({error}); build it again"
            ) from error
        return cls(connection, plan, made_as)

    def get(self, row: int, size: Size) -> bytes | None:
        """A WebP of the image in this row, the small one if the image has no large one; None for an unknown row."""
        large = self._webp("large", row) if size == "large" else None
        return self._webp("small", row) if large is None else large

    def both(self, row: int) -> Thumbnail | None:
        """The whole thumbnail of the image in this row; None for an unknown row."""
        small = self._webp("small", row)
        return None if small is None else Thumbnail(small, self._webp("large", row))

    def size(self, row: int) -> int | None:
        """Bytes of both files of the image in this row, without reading them; None for an unknown row."""
        select = "SELECT length(webp) + coalesce((SELECT length(webp) FROM large WHERE row = ?1), 0)"
        with self._lock, closing(self._connection.execute(f"{select} FROM small WHERE row = ?1", (row,))) as found:
            size = found.fetchone()
        return None if size is None else int(size[0])

    def _webp(self, table: Size, row: int) -> bytes | None:
        select = f"SELECT webp FROM {table} WHERE row = ?"
        with self._lock, closing(self._connection.execute(select, (row,))) as found:
            webp = found.fetchone()
        return None if webp is None else bytes(webp[0])

    def close(self) -> None:
        self._connection.close()
