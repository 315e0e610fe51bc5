"""The bytes of images in Parquet files.

They are read again whenever they are needed. ``RowGroups`` keeps the images of one row group at most.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa

from clip_retrieval.datasets.parquet_file import opened
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected, SourceError, StoreUnreachable
from clip_retrieval.records import ImageBlob


class RowGroups:
    """The images of the row group that was asked for last; safe in several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._key: tuple[str, str, int] | None = None
        self._values: Any = None

    def image(self, file: StoredFile, column: str, group: int, row: int) -> tuple[bytes | None, str | None]:
        """The bytes and the path that ``column`` has in row ``row`` of a row group. Raises ImageRejected."""
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
            value = values[row]
        except IndexError as error:
            raise ImageRejected(f"{file.name} has changed since it was listed") from error
        if not isinstance(value, pa.StructScalar):
            return value.as_py(), None
        data = value["bytes"].as_py() if value.is_valid else None
        # The path may be damaged where the image is whole, so it is looked at only if it is needed.
        return data, value["path"].as_py() if not data and value.is_valid and "path" in value else None


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
        try:
            data, path = self.groups.image(self.file, self.column, self.group, self.row)
            if data:
                return data[: limit + 1]
            if not path:
                raise ImageRejected("the row has no image")
            return self.by_path(path).read(limit)
        except UnicodeDecodeError as error:
            raise ImageRejected("the path of the image is not UTF-8 text") from error
        except ValueError as error:
            raise ImageRejected(str(error)) from error
