"""The rows of the log: its schema, and a hash for every row.

state    one row: whose log it is, its last change, and the artifact that holds its first ones
changes  the latest change of each image
answers  what was answered to an idempotency key
"""

import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from clip_retrieval.atomic import sync
from clip_retrieval.errors import ChangesSchema, EncoderMismatch
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.image_bytes import image_from_bytes
from clip_retrieval.live.log_file import damaged

SCHEMA = 1
"""The number of the schema below, in ``PRAGMA user_version``."""
APPLICATION = 0x62636C67
"""``bclg`` in ``PRAGMA application_id``: the database is a log of changes."""

_TABLES = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        fingerprint TEXT NOT NULL,
        dim INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        base_version TEXT,
        base_sequence INTEGER,
        wipe INTEGER NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE changes (
        sequence INTEGER PRIMARY KEY,
        image_id TEXT NOT NULL UNIQUE,
        image BLOB,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE answers (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        at INTEGER NOT NULL,
        answer BLOB NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE INDEX answers_by_time ON answers (at);
    PRAGMA application_id = {APPLICATION};
    PRAGMA user_version = {SCHEMA};
"""

Value = str | int | bytes | None


class Encoder(NamedTuple):
    """What tells the vectors of one encoder from those of another."""

    fingerprint: str
    dim: int


@dataclass(frozen=True, slots=True)
class State:
    """The one row of ``state``."""

    fingerprint: str
    dim: int
    sequence: int = 0
    base_version: str | None = None
    base_sequence: int | None = None
    wipe: int = 0
    """1 if bytes of dropped entries may still be in a file."""

    @property
    def encoder(self) -> Encoder:
        return Encoder(self.fingerprint, self.dim)

    @classmethod
    def read(cls, connection: sqlite3.Connection, path: Path) -> Self:
        """The row. Raises ChangesDamaged if it is missing or differs from its hash."""
        row = connection.execute("SELECT * FROM state").fetchone()
        if row is None:
            raise damaged(path, "its state is missing")
        _one, *values, stored = row
        check_row(path, "its state", stored, *values)
        return cls(*values)

    def write(self, connection: sqlite3.Connection) -> None:
        """Replace the row."""
        values = (self.fingerprint, self.dim, self.sequence, self.base_version, self.base_sequence, self.wipe)
        connection.execute("REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?)", (*values, hash_of(*values)))


def make_tables(connection: sqlite3.Connection, path: Path, encoder: Encoder) -> None:
    """Make the tables of a new file, which is this encoder's.

    Raises ChangesSchema if another release made the tables, and ChangesDamaged if the file is no log of changes.
    """
    ((version,),) = connection.execute("PRAGMA user_version")
    ((application,),) = connection.execute("PRAGMA application_id")
    if (version, application) == (SCHEMA, APPLICATION):
        return
    if application == APPLICATION and version > SCHEMA:
        raise ChangesSchema(
            f"{path} has schema version {version}, this release reads {SCHEMA}; use the release that wrote it, or "
            f"compact the collection with that release and then move {path.name} away"
        )
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
        raise damaged(path, "it is not a log of changes")
    connection.executescript(_TABLES)
    State(*encoder).write(connection)
    connection.execute("COMMIT")
    for folder in (path.parent, path.parent.parent):
        sync(folder)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise ChangesDamaged unless SQLite's structure is right, and the hash of every row.

    Raises StorageReadOnly, by ``log_errors``, if the file can only be read.
    """
    for (words,) in connection.execute("PRAGMA integrity_check(1)"):
        if words != "ok":
            raise damaged(path, words)
    for sequence, image_id, image, stored in connection.execute("SELECT * FROM changes"):
        check_row(path, f"change {sequence}", stored, sequence, image_id, image)
    for number, key, at, answer, stored in connection.execute("SELECT * FROM answers"):
        check_row(path, f"answer {number}", stored, key, at, answer)
    connection.execute("BEGIN IMMEDIATE")
    State.read(connection, path).write(connection)
    connection.execute("ROLLBACK")


def check_encoder(path: Path, found: State, wanted: Encoder) -> None:
    """Raise EncoderMismatch if the log is another encoder's."""
    if found.encoder != wanted:
        raise EncoderMismatch(
            f"the changes in {path} were made with another encoder ({found.dim} dimensions, fingerprint "
            f"{found.fingerprint}) than {wanted.dim} dimensions, {wanted.fingerprint}; serve a version with the first "
            "one, or choose another folder for changes (BENTO_CLIP_CHANGES) and bring the images that were added to it "
            "again: bento-clip sync SOURCE --to URL"
        )


ALL = -1
"""SQLite's number for a list without a limit."""


def entries_after(
    connection: sqlite3.Connection, path: Path, sequence: int, dim: int, most: int = ALL
) -> list[LogEntry]:
    """The first ``most`` entries of a greater sequence, in its order.

    Raises ChangesDamaged for one that differs from its hash.
    """
    entries = []
    select = "SELECT * FROM changes WHERE sequence > ? ORDER BY sequence LIMIT ?"
    for number, image_id, image, stored in connection.execute(select, (sequence, most)).fetchall():
        check_row(path, f"change {number}", stored, number, image_id, image)
        state = None if image is None else image_from_bytes(image_id, image, dim)
        entries.append(LogEntry(number, image_id, state))
    return entries


def check_row(path: Path, what: str, stored: bytes, *values: Value) -> None:
    """Raise ChangesDamaged, which names ``what``, unless ``stored`` is the hash of these values."""
    if hash_of(*values) != stored:
        raise damaged(path, f"{what} differs from its hash")


def hash_of(*values: Value) -> bytes:
    """SHA-256 of these values, each with its type and its length."""
    digest = hashlib.sha256()
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode()
        digest.update(f"{type(value).__name__} {len(data)}:".encode())
        digest.update(data)
    return digest.digest()
