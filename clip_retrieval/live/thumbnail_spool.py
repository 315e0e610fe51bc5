"""The thumbnails of added images, outside of memory: 20,000 of them are about two gigabytes.

They are in a file without a name, which the system deletes with the process. What finds no room there stays in memory:
a change that is on disk already must not fail here.
"""

import os
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from clip_retrieval.images.shrink import Thumbnail


class ThumbnailSpool:
    """Thumbnails by row. One thread at a time may write; any thread may read."""

    def __init__(self, folder: Path | None) -> None:
        """``folder`` is where the file is made; without it, or if none can be made there, all stay in memory."""
        self._file: int | None = None
        if folder is not None:
            with suppress(OSError):
                self._file, name = tempfile.mkstemp(dir=folder)
                weakref.finalize(self, os.close, self._file)
                Path(name).unlink()
        self._end = 0
        self._kept: dict[int, Thumbnail | tuple[int, int, int | None]] = {}

    def put(self, row: int, thumbnail: Thumbnail) -> None:
        """Keep the thumbnail of a row."""
        self._kept[row] = thumbnail
        if self._file is None:
            return
        with suppress(OSError):
            data = thumbnail.small + (thumbnail.large or b"")
            if os.pwrite(self._file, data, self._end) == len(data):
                sizes = (len(thumbnail.small), None if thumbnail.large is None else len(thumbnail.large))
                self._kept[row] = (self._end, *sizes)
                self._end += len(data)

    def get(self, row: int) -> Thumbnail | None:
        """The thumbnail of a row; None if there is none, or none any more."""
        kept = self._kept.get(row)
        if kept is None or isinstance(kept, Thumbnail):
            return kept
        assert self._file is not None, "it has a place in the file"
        start, small, large = kept
        data = os.pread(self._file, small + (large or 0), start)
        return Thumbnail(data[:small], None if large is None else data[small:])

    def drop(self, row: int) -> None:
        """Let go of the thumbnail of a row, if it has one."""
        self._kept.pop(row, None)
