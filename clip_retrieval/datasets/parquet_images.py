"""The bytes of images in Parquet files.

They are read again whenever they are needed. ``RowBatches`` bounds what is kept of them, however large a row group is.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa

from clip_retrieval.cores import usable_cores
from clip_retrieval.datasets.parquet_groups import column_batches
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected, SourceError, StoreUnreachable
from clip_retrieval.records import ImageBlob
from clip_retrieval.storage import is_of_the_machine

KEPT_BYTES = 2**22

_Key = tuple[str, str, int]
"""File, column and row group."""


@dataclass(frozen=True, slots=True)
class _Batch:
    key: _Key
    start: int
    values: Any
    size: int

    def has(self, key: _Key, row: int) -> bool:
        return self.key == key and self.start <= row < self.start + len(self.values)


class RowBatches:
    """Rows of images that were asked for last; safe in several threads.

    A row group is decoded row after row, about 1 MiB at a time. The last rows are kept: ``kept_bytes``, or
    ``kept_rows`` if these are more, so that threads that read side by side find theirs. That and one page of the file
    are all the memory that it costs. To read further back decodes the row group again from its start.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES, kept_rows: int = 0) -> None:
        """``kept_rows`` is by default two for each core."""
        self._lock = Lock()
        self._kept: deque[_Batch] = deque()
        self._kept_bytes, self._kept_rows = kept_bytes, kept_rows or 2 * usable_cores()
        self._key: _Key | None = None
        self._next_row = 0
        self._reader: Generator[Any, None, None] | None = None
        self._failures: dict[_Key, tuple[int, str]] = {}
        """The first row of a row group that could not be decoded, and why."""

    def __reduce__(self) -> tuple[object, ...]:
        """Another process begins with nothing kept."""
        return RowBatches, (self._kept_bytes, self._kept_rows)

    def image(self, file: StoredFile, column: str, group: int, row: int) -> tuple[bytes | None, str | None]:
        """The bytes and the path that ``column`` has in row ``row`` of a row group.

        Raises ImageRejected, and OSError if that is not the file's fault: too many are open.
        """
        with self._lock:
            batch = self._batch(file, (file.name, column, group), row)
        value = batch.values[row - batch.start]
        if not isinstance(value, pa.StructScalar):
            return value.as_py(), None
        data = value["bytes"].as_py() if value.is_valid else None
        # The path may be damaged where the image is whole, so it is looked at only if it is needed.
        return data, value["path"].as_py() if not data and value.is_valid and "path" in value else None

    def _batch(self, file: StoredFile, key: _Key, row: int) -> _Batch:
        for kept in self._kept:
            if kept.has(key, row):
                return kept
        first_bad, reason = self._failures.get(key, (row + 1, ""))
        if row >= first_bad:
            raise ImageRejected(reason)
        if self._reader is None or self._key != key or row < self._next_row:
            self._close()
            self._reader, self._key, self._next_row = column_batches(file, key[1], key[2]), key, 0
        try:
            while (values := next(self._reader, None)) is not None:
                batch = _Batch(key, self._next_row, values, values.get_total_buffer_size())
                self._next_row += len(values)
                self._keep(batch)
                if row < self._next_row:
                    return batch
        except StoreUnreachable:
            self._close()
            raise
        except SourceError as error:
            if isinstance(error.__cause__, OSError) and is_of_the_machine(error.__cause__):
                self._close()
                raise error.__cause__ from error
            self._failures[key] = (self._next_row, str(error))
            self._close()
            raise ImageRejected(str(error)) from error
        self._close()
        raise ImageRejected(f"{file.name} has changed since it was listed")

    def _keep(self, batch: _Batch) -> None:
        self._kept.append(batch)
        size = sum(kept.size for kept in self._kept)
        rows = sum(len(kept.values) for kept in self._kept)
        # Of the newest batch only the first row may have been asked for yet.
        while size > self._kept_bytes and rows - len(self._kept[0].values) - len(batch.values) >= self._kept_rows:
            oldest = self._kept.popleft()
            size -= oldest.size
            rows -= len(oldest.values)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None


@dataclass(frozen=True, slots=True)
class RowBlob:
    """The image in one row of a Parquet file. An ``ImageBlob``."""

    file: StoredFile
    name: str
    column: str
    group: int
    row: int
    batches: RowBatches = field(compare=False, repr=False)
    by_path: Callable[[str], ImageBlob] = field(compare=False, repr=False)
    """The image of a path, for a row that has a path and no bytes."""

    def read(self, limit: int) -> bytes:
        """The bytes, at most ``limit`` + 1 of them. Raises ImageRejected if the row has none."""
        try:
            data, path = self.batches.image(self.file, self.column, self.group, self.row)
            if data:
                return data[: limit + 1]
            if not path:
                raise ImageRejected("the row has no image")
            return self.by_path(path).read(limit)
        except UnicodeDecodeError as error:
            raise ImageRejected("the path of the image is not UTF-8 text") from error
        except ValueError as error:
            raise ImageRejected(str(error)) from error
