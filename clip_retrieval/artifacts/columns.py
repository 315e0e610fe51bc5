"""Split and metadata of every image as typed columns: written once, and memory-mapped when an artifact opens, but for
small files, which are read.

    columns.json      a list with a FieldInfo for each column: name, type, count, what it holds; its place is *i*
    i.numbers.npy     a column of numbers: float64 (rows,), NaN where an image has no value
    i.codes.npy       a column of text or truth values: int32 (rows,), the place of the image's value among the distinct
                      values in order, -1 where an image has no value
    i.values.utf8     the distinct values, ordered by code points, one after the other in UTF-8
    i.offsets.npy     int64 (values + 1,): where each value begins in that file, and the end

A column is boolean if all its values are true or false, numeric if all are numbers, and text otherwise; what a value
is says ``field_type`` of ``records.py``. A text column holds any other value as JSON writes it. A metadata column named
``split`` is hidden by the split itself.

Values are sorted by SQLite on disk, so that writing needs memory for the arrays but not for the records.
"""

import heapq
import json
import sqlite3
from array import array
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from clip_retrieval.artifacts.array_file import SMALL_BYTES, opened
from clip_retrieval.contract.collection import FieldInfo, FieldValue
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.records import FieldType, Scalar, Split, field_type
from clip_retrieval.storage import storage

SPLIT = "split"
MAX_VALUES = 50
"""How many of the most frequent values a FieldInfo lists."""
DESCRIPTION = "columns.json"

_BUFFERED = 1000
"""Cells of a column that are held until they are written."""
_INFOS = TypeAdapter(list[FieldInfo])


class OrderedValues(Protocol):
    """Distinct values in the order of their code points."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> str: ...


class TextValues:
    """Distinct values in order, decoded one by one from a memory-mapped file."""

    def __init__(self, text: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self._text = text
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, place: int, /) -> str:
        return self._text[self._offsets[place] : self._offsets[place + 1]].tobytes().decode()


@dataclass(frozen=True, slots=True, eq=False)
class StoredCodes:
    """A column of text or of truth values: ``codes`` are places in ``values``, or -1; int32 of shape (rows,)."""

    info: FieldInfo
    codes: NDArray[np.int32]
    values: OrderedValues

    @property
    def rows(self) -> int:
        """How many images the collection has, with and without a value."""
        return len(self.codes)


@dataclass(frozen=True, slots=True, eq=False)
class StoredNumbers:
    """A column of numbers, or NaN where there is none: float64 of shape (rows,)."""

    info: FieldInfo
    numbers: NDArray[np.float64]

    @property
    def rows(self) -> int:
        """How many images the collection has, with and without a value."""
        return len(self.numbers)


StoredColumn: TypeAlias = StoredCodes | StoredNumbers


def write_columns(folder: Path, rows: Iterable[tuple[Split, Mapping[str, Scalar]]]) -> None:
    """Write the columns of images, given as split and metadata in row order, into the new folder ``folder``."""
    folder.mkdir()
    with closing(sqlite3.connect("")) as database:  # a temporary file, which SQLite deletes
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA cache_size = -65536")  # KiB, negative by SQLite's rule
        cells: dict[str, _Cells] = {}
        splits = _Cells(database, 0)
        count = 0
        for row, (split, metadata) in enumerate(rows):
            splits.add(row, split)
            for name, value in metadata.items():
                if value is not None and name != SPLIT:
                    if name not in cells:
                        cells[name] = _Cells(database, len(cells) + 1)
                    cells[name].add(row, value)
            count = row + 1
        ordered = [(name, cells[name]) for name in sorted(cells)] + ([(SPLIT, splits)] if count else [])
        infos = [column.write(name, folder / f"{number}", count) for number, (name, column) in enumerate(ordered)]
    described = json.dumps(_INFOS.dump_python(infos, mode="json"), indent=1)
    (folder / DESCRIPTION).write_text(described, encoding="utf-8")


def described(folder: Path) -> list[FieldInfo]:
    """What the columns in ``folder`` hold. Raises ArtifactDamaged when their description cannot be read."""
    try:
        return _INFOS.validate_json((folder / DESCRIPTION).read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactDamaged(f"{folder} cannot be read ({error}); restore or build the artifact again") from error


def open_columns(folder: Path, rows: int) -> list[StoredColumn]:
    """The columns in ``folder``, memory-mapped for reading where they are not small.

    Raises ArtifactDamaged when a file cannot be read or when a column has another number of rows, StorageFailed where
    the fault is not the file's, such as that too many are open.
    """
    try:
        with storage(folder):
            infos = _INFOS.validate_json((folder / DESCRIPTION).read_bytes())
            columns = [_open(info, folder / f"{number}") for number, info in enumerate(infos)]
    except (OSError, ValueError, EOFError, ValidationError) as error:
        raise ArtifactDamaged(f"{folder} cannot be read ({error}); restore or build the artifact again") from error
    for column in columns:
        if column.rows != rows:
            raise ArtifactDamaged(
                f"{folder}: {column.info.name} has {column.rows} rows instead of {rows}; build the artifact again"
            )
    return columns


def as_text(value: str | float) -> str:
    """Text as it is; a number or a truth value as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value)


class _Cells:
    """The values of one column on their way to the disk, as text, and the types that fit all of them so far."""

    def __init__(self, database: sqlite3.Connection, number: int) -> None:
        self._database = database
        self._table = f"cells_{number}"
        self._buffer: list[tuple[int, str]] = []
        self._types: set[FieldType] = set()
        database.execute(f"CREATE TABLE {self._table} (row INTEGER PRIMARY KEY, value TEXT NOT NULL)")

    def add(self, row: int, value: str | float) -> None:
        self._types.add(field_type(value))
        self._buffer.append((row, as_text(value)))
        if len(self._buffer) == _BUFFERED:
            self._flush()

    def write(self, name: str, path: Path, rows: int) -> FieldInfo:
        """Write the files of the column, whose names begin with ``path``; returns what they hold."""
        self._flush()
        kind = self._types.pop() if len(self._types) == 1 else "text"
        if kind == "number":
            return self._write_numbers(name, path, rows)
        return self._write_codes(name, path, rows, kind)

    def _flush(self) -> None:
        self._database.executemany(f"INSERT INTO {self._table} VALUES (?, ?)", self._buffer)
        self._buffer.clear()

    def _write_numbers(self, name: str, path: Path, rows: int) -> FieldInfo:
        numbers = np.full(rows, np.nan)
        for row, value in self._database.execute(f"SELECT row, value FROM {self._table}"):
            numbers[row] = float(value)
        np.save(path.with_name(f"{path.name}.numbers.npy"), numbers)
        held = numbers[~np.isnan(numbers)]
        low, high = (float(held.min()), float(held.max())) if len(held) else (None, None)
        return FieldInfo(name=name, type="number", count=len(held), values=[], min=low, max=high)

    def _write_codes(self, name: str, path: Path, rows: int, kind: FieldType) -> FieldInfo:
        codes = np.full(rows, -1, dtype=np.int32)
        offsets = array("q", [0])
        frequent: list[tuple[int, int, str]] = []
        cells = self._database.execute(f"SELECT value, row FROM {self._table} ORDER BY value")
        with path.with_name(f"{path.name}.values.utf8").open("wb") as file:
            for code, (value, group) in enumerate(groupby(cells, key=itemgetter(0))):
                members = np.fromiter((row for _, row in group), np.int64)
                codes[members] = code
                offsets.append(offsets[-1] + file.write(value.encode()))
                heapq.heappush(frequent, (len(members), -code, value))
                if len(frequent) > MAX_VALUES:
                    heapq.heappop(frequent)  # the rarest; of equals, the last in order
        np.save(path.with_name(f"{path.name}.codes.npy"), codes)
        np.save(path.with_name(f"{path.name}.offsets.npy"), np.array(offsets, dtype=np.int64))
        values = [
            FieldValue(value=value == "true" if kind == "boolean" else value, count=count)
            for count, _, value in sorted(frequent, reverse=True)
        ]
        return FieldInfo(name=name, type=kind, count=int((codes >= 0).sum()), values=values)


def _open(info: FieldInfo, path: Path) -> StoredColumn:
    def array_of(part: str) -> NDArray[Any]:
        return np.asarray(opened(path.with_name(f"{path.name}.{part}.npy")))

    if info.type == "number":
        return StoredNumbers(info, array_of("numbers"))
    file = path.with_name(f"{path.name}.values.utf8")
    if file.stat().st_size > SMALL_BYTES:
        text = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    else:
        text = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    return StoredCodes(info, array_of("codes"), TextValues(text, array_of("offsets")))
