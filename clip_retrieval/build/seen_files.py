"""What the bytes of image files decode to, so that a file that was decoded once is not decoded again.

The bytes decide, not a file's name, size or time: a changed file with an old date is found. Reading and hashing bytes
takes about a hundredth of the time of decoding them. A row is kept for the release, the decoding libraries, the limits
and the suffix that it was made with, since these can give another image. The file is a cache: without it, or if it is
damaged, every image is decoded.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Self, TypeVar

from PIL import Image

from clip_retrieval import __version__
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.images.decode import Limits, content_hash, decode_image
from clip_retrieval.records import ImageBlob

T = TypeVar("T")

DECODERS = ("pillow", "pillow-heif", "pillow-jxl-plugin")
KEPT_DAYS = 90
"""Days after which a row that no build has asked for is removed."""

_DAY_S = 86_400
_REFRESH_DAYS = 7
_PER_TRANSACTION = 256
_WAIT_S = 30
SETTLED_S = 2
"""Seconds after which a later write gives a file another time of change: clocks of file systems are coarse."""
_TABLE = """
    CREATE TABLE IF NOT EXISTS seen (
        key BLOB PRIMARY KEY, content_hash BLOB NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
        day INTEGER NOT NULL, seal BLOB NOT NULL
    ) STRICT, WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a build needs to know of an image that has its vector and its thumbnail: hash and size of its pixels."""

    content_hash: str
    width: int
    height: int


class SeenFiles:
    """The facts of image files by the hash of their bytes. Safe in any thread, and in several processes at once."""

    def __init__(
        self, path: Path, *, today: int | None = None, stay_open: bool = False, settled_s: float = SETTLED_S
    ) -> None:
        """Open the file ``path``, or make it. ``today`` is in days since 1970.

        With ``stay_open``, for a process that looks at the same files many times, a file that has not changed since it
        was read is not read again: its device, inode, size and times are the same, and the last is at least
        ``settled_s`` seconds old.
        """
        self._settled_s = settled_s
        self._stamps: dict[tuple[object, ...], bytes] | None = {} if stay_open else None
        self._today = int(time.time() // _DAY_S) if today is None else today
        self._lock = threading.Lock()
        self._waiting: dict[bytes, ImageFacts] = {}
        self._connection = _opened(path)
        self._made_with = json.dumps([__version__, {name: _version(name) for name in DECODERS}])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def key(self, data: bytes, name: str, limits: Limits) -> bytes:
        """The key of a file with these bytes and this name."""
        context = [self._made_with, asdict(limits), PurePath(name).suffix.lower()]
        digest = hashlib.sha256(json.dumps(context).encode() + b"\0")
        digest.update(data)
        return digest.digest()

    def get(self, key: bytes) -> ImageFacts | None:
        """The facts of a file that was decoded; None if it is not known."""
        with self._lock:
            if (waiting := self._waiting.get(key)) is not None:
                return waiting
            try:
                found = self._connection.execute("SELECT * FROM seen WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error:
                return None
            if found is None:
                return None
            facts = ImageFacts(found[1].hex(), found[2], found[3])
            if found[5] != _seal(key, facts):
                return None
            if found[4] <= self._today - _REFRESH_DAYS:
                self._keep(key, facts)
            return facts

    def keep(self, key: bytes, facts: ImageFacts) -> None:
        """Remember the facts of a file that was decoded."""
        with self._lock:
            self._keep(key, facts)

    def stamp(self, blob: ImageBlob, limits: Limits) -> tuple[object, ...] | None:
        """What changes when a file is written to; None where only the bytes tell, or if it may be written just now."""
        if self._stamps is None or not isinstance(blob, FileBlob):
            return None
        with suppress(OSError):
            seen = blob.path.stat()
            if (
                time.time() - seen.st_ctime > self._settled_s
            ):  # a later write in the same tick of the clock would not show
                return blob.path, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, limits
        return None

    def key_of(self, stamp: tuple[object, ...] | None) -> bytes | None:
        """The key of a file that was read with this stamp."""
        return None if self._stamps is None or stamp is None else self._stamps.get(stamp)

    def keep_stamp(self, stamp: tuple[object, ...] | None, key: bytes) -> None:
        """Remember the key of a file that was read after it had this stamp."""
        if self._stamps is not None and stamp is not None:
            self._stamps[stamp] = key

    def close(self) -> None:
        """Write what is new, remove what was not asked for in ``KEPT_DAYS``, and close the file."""
        with self._lock:
            self._flush()
            with suppress(sqlite3.Error), self._connection:
                self._connection.execute("DELETE FROM seen WHERE day < ?", (self._today - KEPT_DAYS,))
            self._connection.close()

    def _keep(self, key: bytes, facts: ImageFacts) -> None:
        self._waiting[key] = facts
        if len(self._waiting) >= _PER_TRANSACTION:
            self._flush()

    def _flush(self) -> None:
        rows = [
            (key, bytes.fromhex(one.content_hash), one.width, one.height, self._today, _seal(key, one))
            for key, one in self._waiting.items()
        ]
        with suppress(sqlite3.Error), self._connection:  # a full disk costs a later build some time, and nothing else
            self._connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._waiting.clear()


def look_at(
    blob: ImageBlob, limits: Limits, seen: SeenFiles | None, needs_pixels: Callable[[str], bool]
) -> tuple[ImageFacts, Image.Image | None]:
    """The facts of an image and its RGB pixels; no pixels if its bytes were seen and its hash needs none.

    ``needs_pixels`` gets the content hash. Raises ImageRejected with the reason.
    """
    return look_with(lambda data, name: decoded(data, limits, name), blob, limits, seen, needs_pixels)


def look_with(
    decode: Callable[[bytes, str], tuple[ImageFacts, T]],
    blob: ImageBlob,
    limits: Limits,
    seen: SeenFiles | None,
    needs_pixels: Callable[[str], bool],
) -> tuple[ImageFacts, T | None]:
    """As ``look_at``, with what ``decode`` makes of the bytes and the name of a file instead of its pixels."""
    if seen is None:
        return decode(blob.read(limits.max_bytes), blob.name)
    stamp = seen.stamp(blob, limits)
    if (unread := seen.key_of(stamp)) is not None:
        known = seen.get(unread)
        if known is not None and not needs_pixels(known.content_hash):
            return known, None
    data = blob.read(limits.max_bytes)
    key = seen.key(data, blob.name, limits)
    known = seen.get(key)
    if known is not None and not needs_pixels(known.content_hash):
        seen.keep_stamp(stamp, key)
        return known, None
    facts, made = decode(data, blob.name)
    seen.keep(key, facts)
    seen.keep_stamp(stamp, key)
    return facts, made


def decoded(data: bytes, limits: Limits, name: str) -> tuple[ImageFacts, Image.Image]:
    """The facts of an image file and its RGB pixels. Raises ImageRejected with the reason."""
    image = decode_image(data, limits, name)
    return ImageFacts(content_hash(image), *image.size), image


def _opened(path: Path) -> sqlite3.Connection:
    """The file, made anew if it is damaged; in memory if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _connected(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            path.unlink()
            return _connected(path)
    except (sqlite3.Error, OSError):
        return _connected(":memory:")


def _connected(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # a crash of the machine may cost the cache
        connection.execute(_TABLE)
        connection.execute("SELECT key, content_hash, width, height, day, seal FROM seen LIMIT 1")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _seal(key: bytes, facts: ImageFacts) -> bytes:
    """Finds a damaged row."""
    return hashlib.sha256(key + repr(facts).encode()).digest()[:8]


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None
