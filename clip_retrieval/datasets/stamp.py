"""What tells that the bytes of an image may have changed, without reading them; and the same on another machine."""

import os
from contextlib import suppress
from typing import cast

from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.stored import PartBlob
from clip_retrieval.records import ImageBlob

Stamp = tuple[object, ...]


def stamp_of(blob: ImageBlob) -> Stamp:
    """Place, size and time of change (ns) of a file of a file system; place and size of one of a store.

    For a part of a file it is the stamp of the file, and where the part lies. A file that is missing has a stamp too.
    A stamp is made of strings, numbers, None and tuples of them.
    """
    if isinstance(blob, FileBlob):
        seen = None
        with suppress(OSError, ValueError):
            seen = blob.path.stat()
        return (
            (os.fspath(blob.path), None, None)
            if seen is None
            else (os.fspath(blob.path), seen.st_size, seen.st_mtime_ns)
        )
    if isinstance(blob, PartBlob):
        return (*stamp_of(blob.file), blob.offset, blob.size)
    inner = getattr(blob, "file", None)  # a row of a Parquet file: that library is imported only where rows are read
    if inner is not None:
        row = (getattr(blob, name, None) for name in ("column", "group", "row"))
        return (*stamp_of(cast(ImageBlob, inner)), *row)
    return (blob.name, str(getattr(blob, "path", "")), getattr(blob, "size", None))
