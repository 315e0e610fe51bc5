"""The row groups of a Parquet file: the images of one, read page after page, and which ones lack images."""

from collections.abc import Generator
from typing import Any

from clip_retrieval.datasets.parquet_file import BATCH_ROWS, opened
from clip_retrieval.datasets.stored import StoredFile

_BATCH_BYTES = 2**20
_BUFFER = 2**20
"""Bytes of a column that are read at once; all the bytes of a column may be many gigabytes."""


def column_batches(file: StoredFile, column: str, group: int) -> Generator[Any, None, None]:
    """The values of one column in a row group, in ``pyarrow`` arrays of about 1 MiB or of one row.

    Pages are read one after the other, so memory does not grow with the row group. The file is open until the last
    array was given, or the generator is closed. Raises SourceError.
    """
    with opened(file, buffer=_BUFFER) as parquet:
        if group >= parquet.num_row_groups:
            return
        rows = parquet.metadata.row_group(group)
        size = sum(part.total_uncompressed_size for part in _parts(rows, column))
        at_once = min(max(_BATCH_BYTES * rows.num_rows // max(size, 1), 1), BATCH_ROWS)
        for batch in parquet.iter_batches(batch_size=at_once, row_groups=[group], columns=[column]):
            yield batch.column(0)


def groups_with_gaps(parquet: Any, column: str) -> frozenset[int]:
    """The row groups of a ``ParquetFile`` in which a row of the struct ``column`` may have no ``bytes``."""
    found = set()
    for group in range(parquet.num_row_groups):
        for part in _parts(parquet.metadata.row_group(group), f"{column}.bytes"):
            known = part.statistics if part.is_stats_set else None
            if known is None or not known.has_null_count or known.null_count:
                found.add(group)
    return frozenset(found)


def _parts(group: Any, column: str) -> list[Any]:
    """The column chunks of a column, or of the fields of a struct, in the metadata of a row group."""
    chunks = (group.column(number) for number in range(group.num_columns))
    return [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{column}.")]
