"""Which images of Parquet files have rows that do not follow each other."""

from collections.abc import Iterable

from clip_retrieval.datasets.column_names import roles_of
from clip_retrieval.datasets.parquet_file import columns_of, opened, rows_of
from clip_retrieval.datasets.samples import text_in
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import SourceError, StoreUnreachable
from clip_retrieval.records import Reject


def scattered_ids(files: Iterable[StoredFile]) -> set[str]:
    """The values of ``image_id`` that come again after another one, in the files in this order.

    Reads no other column, and holds each value once. A damaged file has none. Raises StoreUnreachable.
    """
    seen: set[str] = set()
    scattered: set[str] = set()
    last: str | None = None
    for file in files:
        try:
            with opened(file) as parquet:
                columns = columns_of(parquet.schema_arrow)
            column = roles_of(columns.names).others.get("image_id")
            if column is None or column in columns.heavy:
                continue
            for row in rows_of(file, [column]):
                if isinstance(row, Reject):
                    continue
                identity = text_in(row.values, column)
                if identity is not None and identity != last and identity in seen:
                    scattered.add(identity)
                if identity is not None:
                    seen.add(identity)
                last = identity
        except StoreUnreachable:
            raise
        except SourceError:
            continue  # the files are read once more, and it is told then
    return scattered
