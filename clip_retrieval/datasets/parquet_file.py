"""One Parquet file: its columns, and its rows in batches."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowException, types

from clip_retrieval.datasets.column_names import numbered
from clip_retrieval.datasets.samples import Unreadable
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import SourceError, StoreUnreachable
from clip_retrieval.records import Reject

BATCH_ROWS = 1024
_LONGEST_HASH = 64
"""Bytes. A column of bytes of one size has hashes or ids if they are as short as that; no image is."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file by what their types allow."""

    names: tuple[str, ...]
    """Numbered, if the file has a name several times."""
    images: tuple[str, ...]
    """Columns of bytes, and structs with ``bytes``."""
    with_path: tuple[str, ...]
    """Those of ``images`` that are structs with a ``path`` too, as Hugging Face writes images."""
    text: tuple[str, ...]
    heavy: tuple[str, ...]
    """Columns that have bytes at any depth. They are not read with the rows."""
    nested: tuple[str, ...]
    """Columns that have bytes deeper than an image has, such as lists of images."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its number from 1, its place in a row group, and its values by column."""

    number: int
    group: int
    row: int
    values: dict[str, Any]


@contextmanager
def opened(file: StoredFile, buffer: int = 0) -> Iterator[Any]:
    """The file as a ``pyarrow.parquet.ParquetFile``; columns are read whole, or ``buffer`` bytes at once.

    Raises SourceError if it is none, or is damaged.
    """
    try:
        with (
            file.open() as handle,
            pq.ParquetFile(handle, buffer_size=buffer, page_checksum_verification=True) as parquet,
        ):
            yield parquet
    except (ArrowException, OSError, EOFError) as error:
        raise SourceError(f"{file.name} cannot be read as Parquet: {_reason(error)}") from error


def have_more_rows(files: Iterable[StoredFile], count: int) -> bool:
    """Whether these files have more than ``count`` rows; damaged files count as empty. Reads no more than it needs."""
    for file in files:
        try:
            with opened(file) as parquet:
                count -= parquet.metadata.num_rows
        except StoreUnreachable:
            raise
        except SourceError:
            continue
        if count < 0:
            return True
    return False


def columns_of(schema: Any) -> Columns:
    """The columns of a ``pyarrow.Schema`` by their types.

    Raises SourceError for a name of several columns of which one has bytes: pyarrow reads them by name, all at once.
    """

    def may_be_image(kind: Any) -> bool:
        if types.is_fixed_size_binary(kind):
            return bool(kind.byte_width > _LONGEST_HASH)
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    def is_bytes(kind: Any) -> bool:
        return may_be_image(kind) or bool(types.is_fixed_size_binary(kind))

    def is_text(kind: Any) -> bool:
        if types.is_dictionary(kind):
            return is_text(kind.value_type)
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

    def inner(kind: Any) -> dict[str, Any]:
        return {part.name: part.type for part in kind} if types.is_struct(kind) else {}

    def is_heavy(kind: Any) -> bool:
        if isinstance(kind, pa.BaseExtensionType):  # such as a UUID
            return is_heavy(kind.storage_type)
        parts = [kind.field(number).type for number in range(kind.num_fields)]
        return is_bytes(kind) or any(is_heavy(part) for part in parts)

    kinds = dict(zip(numbered(schema.names), schema.types, strict=True))
    images = [name for name, kind in kinds.items() if may_be_image(inner(kind).get("bytes", kind))]
    heavy = [name for name, kind in kinds.items() if is_heavy(kind)]
    for given, name in zip(schema.names, kinds, strict=True):
        if name in heavy and schema.names.count(given) > 1:
            raise SourceError(f"several columns are called {given!r}, and one has bytes; give each a name of its own")
    return Columns(
        names=tuple(kinds),
        images=tuple(images),
        with_path=tuple(name for name in images if is_text(inner(kinds[name]).get("path", pa.null()))),
        text=tuple(name for name, kind in kinds.items() if is_text(kind)),
        heavy=tuple(heavy),
        nested=tuple(name for name in heavy if name not in images and kinds[name].num_fields),
    )


def class_names(schema: Any) -> dict[str, list[str]]:
    """The names of the numbers in each column of labels, as Hugging Face keeps them beside the schema.

    Source: https://huggingface.co/docs/datasets/about_dataset_features, ``ClassLabel``.
    """
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def rows_of(file: StoredFile, columns: Sequence[str]) -> Iterator[Row | Reject]:
    """The rows with the values of ``columns``, named as ``columns_of`` does (``image.path`` for a part of a struct).

    Rows are read in batches, so that memory does not grow with the file. A row group that is damaged is a Reject.
    Raises SourceError.
    """
    with opened(file) as parquet:
        names = parquet.schema_arrow.names
        given = dict(zip(numbered(names), names, strict=True))
        wanted = [*dict.fromkeys(given.get(column, column) for column in columns)]
        above = 0
        for group in range(parquet.num_row_groups):
            count, row = parquet.metadata.row_group(group).num_rows, 0
            try:
                for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=wanted):
                    # A batch without columns has rows, but gives no values for them.
                    for values in _values(_renamed(batch, given)) if columns else [{}] * batch.num_rows:
                        yield Row(above + row + 1, group, row, values)
                        row += 1
            except (ArrowException, OSError) as error:
                where = f"{file.name} rows {above + row + 1} to {above + count}"
                yield Reject(where, f"the row group cannot be read: {_reason(error)}", may_hide=True)
            above += count


def _renamed(batch: Any, given: Mapping[str, str]) -> Any:
    """The batch with names of its own; ``given`` has the name in the file for each, in the order of the file."""
    own: dict[str, list[str]] = {}
    for name, in_file in reversed([*given.items()]):
        own.setdefault(in_file, []).append(name)
    return batch.rename_columns([own[name].pop() for name in batch.schema.names])


def _values(batch: Any) -> list[dict[str, Any]]:
    if not any(_has_nanoseconds(kind) for kind in batch.schema.types):
        with suppress(ValueError, OverflowError, ArrowException):
            rows: list[dict[str, Any]] = batch.to_pylist()
            return rows
        # One value that Python has no type for is no reason to lose the others.
    columns = {name: [_value(value) for value in batch[name]] for name in batch.schema.names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _has_nanoseconds(kind: Any) -> bool:
    """Whether values are moments or times in nanoseconds, which pyarrow gives as types of pandas if that is there."""
    return bool((types.is_timestamp(kind) or types.is_duration(kind)) and kind.unit == "ns")


def _value(scalar: Any) -> Any:
    """The value for Python; as text where it has more digits than Python's types; or why there is none."""
    try:
        if _has_nanoseconds(kind := scalar.type):
            return scalar.cast(pa.duration("us") if types.is_duration(kind) else pa.timestamp("us", kind.tz)).as_py()
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
