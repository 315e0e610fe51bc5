"""The bytes of images in Parquet files.

They are read again whenever they are needed. ``RowGroups`` keeps the images of one row group at most.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from clip_retrieval.datasets.parquet_file import opened
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected, SourceError, StoreUnreachable
from clip_retrieval.records import ImageBlob


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
