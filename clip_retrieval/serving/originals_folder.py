"""The original files where they still are: in a folder that the operator names, as the source of the collection.

A file is given out only if it lies in that folder when all symbolic links are followed, and if it still shows the
pixels that the collection has: the hash in its record is that of the pixels. So nothing but images of the collection
leaves the folder, whatever a record says its path is.
"""

import os
import stat
import threading
from pathlib import Path
from typing import NamedTuple

from cachetools import LRUCache

from clip_retrieval.artifacts.originals import FilePart
from clip_retrieval.errors import Busy, ImageRejected
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.records import ImageRecord

KEPT = 10_000
"""Files of which it is known what they show."""
WAITING = 4
"""Requests that may wait for a file to be decoded; another one comes again later."""

Stamp = tuple[str, int, int, int, int, int]
"""A file's path, and what changes when it is written to: device, inode, size, times of content and of change."""


class FoundOriginal(NamedTuple):
    """A file that shows the pixels of an image, and a name for its present bytes."""

    part: FilePart
    tag: str


class OriginalsFolder:
    """A folder with the originals of a collection. Any thread may ask it."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """``limits`` are those of an image that is decoded."""
        self._folder, self._limits = folder, limits
        self._hashes: LRUCache[Stamp, str] = LRUCache(KEPT)
        self._lock, self._decoding = threading.Lock(), threading.Lock()
        self._waiting = threading.BoundedSemaphore(WAITING)

    def find(self, image: ImageRecord) -> FoundOriginal | None:
        """The file of an image; None if it is not in the folder, or shows something else by now.

        Raises Busy if too many files are being decoded.
        """
        try:
            root = self._folder.resolve(strict=True)
            path = (root / image.image_path).resolve(strict=True)
            seen = path.stat()
        except (OSError, ValueError, RuntimeError):  # it is not there, or no path at all, or a circle of links
            return None
        if not (path.is_relative_to(root) and stat.S_ISREG(seen.st_mode)):
            return None
        stamp = _stamp(path, seen)
        if self._shown_by(path, stamp) != image.content_hash:
            return None
        return FoundOriginal(
            FilePart(path, 0, seen.st_size), f"{image.content_hash[:16]}-{seen.st_size:x}-{seen.st_mtime_ns:x}"
        )

    def _shown_by(self, path: Path, stamp: Stamp) -> str | None:
        """The content hash of the image in a file; None if it is none that is read."""
        with self._lock:
            known = self._hashes.get(stamp)
        if known is not None:
            return known
        if not self._waiting.acquire(blocking=False):
            raise Busy("too many original files are being looked at; try again in a moment")
        try:
            with self._decoding:  # one at a time: a large image takes much memory
                found = self._decoded(path)
                is_same = _stamp(path, path.stat()) == stamp
        except OSError:
            return None
        finally:
            self._waiting.release()
        if found is not None and is_same:
            with self._lock:
                self._hashes[stamp] = found
        return found if is_same else None

    def _decoded(self, path: Path) -> str | None:
        with path.open("rb") as file:
            data = file.read(self._limits.max_bytes + 1)
        try:
            return content_hash(decode_image(data, self._limits, path.name))
        except ImageRejected:
            return None


def _stamp(path: Path, seen: os.stat_result) -> Stamp:
    return (str(path), seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
