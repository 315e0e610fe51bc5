"""One Parquet file: its columns, its rows in batches, and the bytes of its images by row group.

The images of a file are read again whenever they are needed. ``RowGroups`` keeps the images of one row group at most.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowException, types

from clip_retrieval.datasets.samples import Unreadable
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected, SourceError, StoreUnreachable
from clip_retrieval.records import ImageBlob, Reject

BATCH_ROWS = 1024
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file by what their types allow."""

    names: tuple[str, ...]
    images: tuple[str, ...]
    """Columns of bytes, and structs with ``bytes``."""
    with_path: tuple[str, ...]
    """Those of ``images`` that are structs with a ``path`` too, as Hugging Face writes images."""
    text: tuple[str, ...]
    heavy: tuple[str, ...]
    """Columns that have bytes at any depth. They are not read with the rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its number from 1, its place in a row group, and its values by column."""

    number: int
    group: int
    row: int
    values: dict[str, Any]


class RowGroups:
    """The values of one column in the row group that was asked for last; safe in several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._key: tuple[str, str, int] | None = None
        self._values: Any = None

    def value(self, file: StoredFile, column: str, group: int, row: int) -> Any:
        """The value of ``column`` in row ``row`` of a row group, as a Python value. Raises ImageRejected."""
        with self._lock:
            if self._key != (file.name, column, group):
                self._key, self._values = None, None
                try:
                    with opened(file) as parquet:
                        self._values = parquet.read_row_group(group, columns=[column]).column(0)
                except StoreUnreachable:
                    raise
                except SourceError as error:
                    raise ImageRejected(str(error)) from error
                self._key = (file.name, column, group)
            values = self._values
        try:
            return values[row].as_py()
        except IndexError as error:
            raise ImageRejected(f"{file.name} has changed since it was listed") from error


@dataclass(frozen=True, slots=True)
class RowBlob:
    """The image in one row of a Parquet file. An ``ImageBlob``."""

    file: StoredFile
    name: str
    column: str
    group: int
    row: int
    groups: RowGroups = field(compare=False, repr=False)
    by_path: Callable[[str], ImageBlob] = field(compare=False, repr=False)
    """The image of a path, for a row that has a path and no bytes."""

    def read(self, limit: int) -> bytes:
        """The bytes, at most ``limit`` + 1 of them. Raises ImageRejected if the row has none."""
        value = self.groups.value(self.file, self.column, self.group, self.row)
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(data, bytes) and data:
            return data[: limit + 1]
        if not isinstance(path, str) or not path:
            raise ImageRejected("the row has no image")
        try:
            return self.by_path(path).read(limit)
        except ValueError as error:
            raise ImageRejected(str(error)) from error


@contextmanager
def opened(file: StoredFile) -> Iterator[Any]:
    """The file as a ``pyarrow.parquet.ParquetFile``. Raises SourceError if it is none, or is damaged."""
    try:
        with file.open() as handle, pq.ParquetFile(handle) as parquet:
            yield parquet
    except (ArrowException, OSError, EOFError) as error:
        raise SourceError(f"{file.name} cannot be read as Parquet: {_reason(error)}") from error


def columns_of(schema: Any) -> Columns:
    """The columns of a ``pyarrow.Schema`` by their types."""

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    def is_text(kind: Any) -> bool:
        if types.is_dictionary(kind):
            return is_text(kind.value_type)
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

    def inner(kind: Any) -> dict[str, Any]:
        return {part.name: part.type for part in kind} if types.is_struct(kind) else {}

    def is_heavy(kind: Any) -> bool:
        parts = [kind.field(number).type for number in range(kind.num_fields)]
        return is_bytes(kind) or any(is_heavy(part) for part in parts)

    kinds = {column.name: column.type for column in schema}
    images = [name for name, kind in kinds.items() if is_bytes(inner(kind).get("bytes", kind))]
    return Columns(
        names=tuple(kinds),
        images=tuple(images),
        with_path=tuple(name for name in images if is_text(inner(kinds[name]).get("path", pa.null()))),
        text=tuple(name for name, kind in kinds.items() if is_text(kind)),
        heavy=tuple(name for name, kind in kinds.items() if is_heavy(kind)),
    )


def rows_of(file: StoredFile, columns: Sequence[str]) -> Iterator[Row | Reject]:
    """The rows with the values of ``columns`` (``image.path`` for a part of a struct).

    Rows are read in batches, so that memory does not grow with the file. A row group that is damaged is a Reject.
    Raises SourceError.
    """
    with opened(file) as parquet:
        above = 0
        for group in range(parquet.num_row_groups):
            count, row = parquet.metadata.row_group(group).num_rows, 0
            try:
                for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=list(columns)):
                    # A batch without columns has rows, but gives no values for them.
                    for values in _values(batch) if columns else [{}] * batch.num_rows:
                        yield Row(above + row + 1, group, row, values)
                        row += 1
            except (ArrowException, OSError) as error:
                where = f"{file.name} rows {above + row + 1} to {above + count}"
                yield Reject(where, f"the row group cannot be read: {_reason(error)}")
            above += count


def _values(batch: Any) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError, ArrowException):
        # One value that Python has no type for is no reason to lose the others.
        columns = {name: [_value(value) for value in batch[name]] for name in batch.schema.names}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows


def _value(scalar: Any) -> Any:
    """The value for Python; as text where it has more digits than Python's types; or why there is none."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, ArrowException) as error:
        if not types.is_temporal(scalar.type):
            return Unreadable("not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _reason(error))
    try:
        if types.is_duration(scalar.type):
            return scalar.cast(pa.int64()).as_py() / _PER_SECOND[scalar.type.unit]
        return scalar.cast(pa.string()).as_py()
    except (ValueError, ArrowException) as error:
        return Unreadable(_reason(error))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).split("\n", maxsplit=1)[0]
