"""Which images and captions have a word: an inverted index in SQLite FTS5, written once and opened read-only.

    words.sqlite   for images and for captions the rows that have a word (FTS5), and how many have the frequent ones
    images.npy     how many different words each image has, int32 (images,)
    captions.npy   the same of captions, int32 (captions,)

The words of an image are those of its captions, of its path, of its id and of its values in some metadata columns: the
ones that a build names, by default those of text. The words of a caption are its own. ``word_split.py`` says what a
word is; FTS5 gets words that it takes as they are, and is asked for one word at a time, as a bound value: nothing
that a person types is read as FTS5's query language. Whether a row has a word is stored, and not how often.
"""

import json
import sqlite3
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import SPLIT, as_text
from clip_retrieval.artifacts.record_arrays import open_array
from clip_retrieval.artifacts.record_store import BLOCK_ROWS, RecordStore
from clip_retrieval.artifacts.word_split import words_of
from clip_retrieval.errors import ArtifactDamaged, ArtifactError
from clip_retrieval.records import MODALITIES, ImageRecord, Modality, Scalar

WORDS = "words"
"""The folder in an artifact."""
DATABASE = "words.sqlite"
FORMAT = 1
"""The number of this layout, and of the rules by which texts are split."""
FEW = 500
"""Rows that have a word; where more have it, their number is stored."""
MAX_WORDS = 4096
"""Different words of one image or caption that are kept."""

Rows = NDArray[np.int64]


class StoredWords:
    """The words of an artifact. Any thread may read."""

    def __init__(self, connection: sqlite3.Connection, lengths: Mapping[Modality, NDArray[np.int32]]) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._lengths = lengths
        self._totals = dict(connection.execute("SELECT target, words FROM totals").fetchall())
        self.columns = _columns_of(connection)
        """The metadata columns that the build named; None for those of text."""

    @classmethod
    def open(cls, folder: Path, rows: Mapping[Modality, int]) -> Self:
        """Open the words in ``folder`` for reading, those of so many ``rows``. Raises ArtifactDamaged."""
        path = folder / DATABASE
        lengths = {target: open_array(folder / f"{target}.npy", rows[target]) for target in MODALITIES}
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != FORMAT:
                connection.close()
                raise ArtifactDamaged(f"{path} has format {version}, this release reads {FORMAT}; build it again")
            return cls(connection, lengths)
        except (sqlite3.Error, ValueError, TypeError) as error:  # also for a row that is not there
            raise ArtifactDamaged(f"{path} cannot be read ({error}); build the artifact again") from error

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        """Raise ArtifactDamaged unless the index names no rows that are not there. The time does not grow with it."""
        for target in MODALITIES:
            try:
                found = self._query(f"SELECT doc FROM {target}_with LIMIT 1", ())
            except sqlite3.Error as error:
                raise ArtifactDamaged(f"{DATABASE} cannot be read ({error}); build the artifact again") from error
            if bool(found) != bool(self._lengths[target].any()):
                raise ArtifactDamaged(f"{DATABASE} and the lengths of {target} do not fit; build the artifact again")

    def lengths(self, target: Modality) -> NDArray[np.int32]:
        """How many different words each row has, shape (rows,)."""
        return self._lengths[target]

    def total_length(self, target: Modality) -> int:
        """The sum of these."""
        return int(self._totals[target])

    def count(self, target: Modality, word: str) -> int | None:
        """How many rows have a word that more than ``FEW`` have; None for any other."""
        found = self._query("SELECT rows FROM frequent WHERE target = ? AND word = ?", (target, word))
        return None if not found else int(found[0][0])

    def rows_with(self, target: Modality, word: str, most: int) -> Rows:
        """The first ``most`` rows that have the word, in order, int64."""
        found = self._query(f"SELECT doc FROM {target}_with WHERE term = ? LIMIT ?", (word, most))
        return np.fromiter((row for (row,) in found), np.int64, len(found))

    def _query(self, statement: str, parameters: tuple[str | int, ...]) -> list[tuple[int]]:
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()


def write_words(records: Path, folder: Path, text_columns: Sequence[str], chosen: Sequence[str] | None) -> None:
    """Write the words of the records in the file ``records`` into the new folder ``folder``.

    ``chosen`` are the metadata columns whose values count; None means ``text_columns``, and is remembered as that.
    Records are read in blocks. Raises ArtifactError where Python's SQLite has no FTS5.
    """
    folder.mkdir()
    columns = frozenset(text_columns if chosen is None else chosen)
    with closing(RecordStore.open(records)) as store, closing(sqlite3.connect(folder / DATABASE)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        try:
            for target in MODALITIES:
                database.execute(
                    f"CREATE VIRTUAL TABLE {target} USING "
                    "fts5(words, content='', columnsize=0, detail=none, tokenize='ascii')"
                )
                database.execute(f"CREATE VIRTUAL TABLE {target}_with USING fts5vocab('{target}', 'instance')")
        except sqlite3.OperationalError as error:
            raise ArtifactError(f"the SQLite of this Python cannot index words ({error}); use another Python") from None
        database.execute(
            "CREATE TABLE frequent (target TEXT, word TEXT, rows INTEGER NOT NULL, PRIMARY KEY (target, word)) "
            "WITHOUT ROWID"
        )
        database.execute("CREATE TABLE totals (target TEXT PRIMARY KEY, words INTEGER NOT NULL) WITHOUT ROWID")
        database.execute("CREATE TABLE columns (names TEXT)")
        database.execute("INSERT INTO columns VALUES (?)", (None if chosen is None else json.dumps(list(chosen)),))
        images, captions = store.counts()
        _fill(database, folder, "images", _image_documents(store, images, columns), images)
        _fill(database, folder, "captions", _caption_documents(store, captions), captions)
        database.execute(f"PRAGMA user_version = {FORMAT}")
        database.commit()
        database.execute("VACUUM")


def image_words(image: ImageRecord, captions: Iterable[str], columns: Container[str]) -> list[str]:
    """The different words of an image with these captions; of its metadata those of ``columns``."""
    return _different([*captions, *name_texts(image), *value_texts(image.metadata, columns)])


def caption_words(text: str) -> list[str]:
    """The different words of a caption."""
    return _different([text])


def name_texts(image: ImageRecord) -> list[str]:
    """What an image is called: its path, and its id if the path does not have it."""
    return [image.image_path, *([] if image.image_id in image.image_path else [image.image_id])]


def value_texts(metadata: Mapping[str, Scalar], columns: Container[str]) -> list[str]:
    """The values of these columns as texts."""
    return [
        as_text(value) for name, value in metadata.items() if value is not None and name in columns and name != SPLIT
    ]


def _different(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for text in texts for word in words_of(text)))[:MAX_WORDS]


def _image_documents(store: RecordStore, count: int, columns: Container[str]) -> Iterator[list[str]]:
    for start in range(0, count, BLOCK_ROWS):
        rows = range(start, min(start + BLOCK_ROWS, count))
        captions = store.captions_of(rows)
        for image in store.images(rows):
            yield image_words(image, (caption.text for caption in captions[image.row]), columns)


def _caption_documents(store: RecordStore, count: int) -> Iterator[list[str]]:
    for start in range(0, count, BLOCK_ROWS):
        for caption in store.captions(range(start, min(start + BLOCK_ROWS, count))):
            yield caption_words(caption.text)


def _fill(
    database: sqlite3.Connection, folder: Path, target: Modality, documents: Iterator[list[str]], count: int
) -> None:
    lengths = np.zeros(count, np.int32)

    def rows() -> Iterator[tuple[int, str]]:
        for row, words in enumerate(documents):
            lengths[row] = len(words)
            yield row, " ".join(words)

    database.executemany(f"INSERT INTO {target} (rowid, words) VALUES (?, ?)", rows())
    database.execute(f"INSERT INTO {target} ({target}) VALUES ('optimize')")
    database.execute(f"CREATE VIRTUAL TABLE temp.{target}_words USING fts5vocab(main, '{target}', 'row')")
    database.execute(
        f"INSERT INTO frequent SELECT ?, term, doc FROM temp.{target}_words WHERE doc > ? ORDER BY term",
        (target, FEW),
    )
    database.execute(f"DROP TABLE temp.{target}_words")
    database.execute("INSERT INTO totals VALUES (?, ?)", (target, int(lengths.sum(dtype=np.int64))))
    np.save(folder / f"{target}.npy", lengths)


def _columns_of(connection: sqlite3.Connection) -> tuple[str, ...] | None:
    (names,) = connection.execute("SELECT names FROM columns").fetchone()
    return None if names is None else tuple(json.loads(names))
