"""The files in a tar, without unpacking it: the headers are read once, and each file is a part of the archive.

Reads what Python's ``tarfile`` reads: ustar, pax and GNU long names. The standard is POSIX.1-2017, pax.
"""

import os
import tarfile
import unicodedata
from collections.abc import Generator, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from clip_retrieval.datasets.base import is_text
from clip_retrieval.datasets.stored import PartBlob, StoredFile
from clip_retrieval.errors import SourceError
from clip_retrieval.records import Reject

BLOCK = tarfile.BLOCKSIZE
_HEADER_LIMIT = 1 << 20
"""Bytes of an extended header: it holds a name, and a damaged one could claim gigabytes."""
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "zstd --decompress",
}
_DAMAGE = (tarfile.TarError, ValueError, IndexError, OverflowError)
"""What ``tarfile`` raises for headers that are damaged, also in ways that it does not expect."""


def files_in(file: StoredFile) -> Iterator[PartBlob | Reject]:
    """The files in a tar in their order; names begin with ``file.name`` and a slash.

    A Reject stands for what is no file (a link, a device), for a name that is no relative path, and for damage.
    After damage the next header that is whole is searched for. Folders are left out. Raises SourceError if ``file`` is
    not a tar, or is compressed: then its images could not be read one by one.
    """
    try:
        with file.open() as handle:
            yield from _files(file, handle)
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror or error}") from error


def _files(file: StoredFile, handle: BinaryIO) -> Iterator[PartBlob | Reject]:
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(BLOCK)
    for magic, tool in _COMPRESSED.items():
        if head.startswith(magic):
            raise SourceError(
                f"{file.name} is compressed, so its images cannot be read one by one; unpack it with {tool} first"
            )
    if not _is_header(head) and head.strip(b"\0"):
        raise SourceError(f"{file.name} is not a tar archive")
    if size < 2 * BLOCK:
        raise SourceError(f"{file.name} is empty")
    start: int | None = 0
    while start is not None:
        end = yield from _run(file, handle, start, size)
        if end is None:
            return
        start = _next_header(handle, end + BLOCK)
        what = f"is read on from byte {start}" if start is not None else "has no whole header after it"
        yield Reject(file.name, f"the archive is damaged or cut off at byte {end} of {size}, and {what}", may_hide=True)


def _run(file: StoredFile, handle: BinaryIO, start: int, size: int) -> Generator[PartBlob | Reject, None, int | None]:
    """The files from the header at byte ``start`` up to damage; returns the byte of the damage, None at a clean end."""
    handle.seek(start)
    last = start
    try:
        # The name is given so that tarfile does not ask the handle for one.
        with _Tar(file.name, fileobj=cast(BinaryIO, _Headers(handle)), encoding="utf-8") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # else memory grows with the archive
                end = info.offset_data + info.size
                if info.isreg() and end > size:
                    yield Reject(
                        _shown(file, info.name),
                        f"the archive ends inside this file, at byte {size}; what comes before is read",
                        may_hide=True,
                    )
                    return None
                last = tar.offset
                if (found := _file(file, info)) is not None:
                    yield found
            last = tar.offset
    except _DAMAGE:
        return last
    except RecursionError:
        yield Reject(file.name, f"too many extended headers from byte {last} on; the rest is not read", may_hide=True)
        return None
    handle.seek(last)
    return None if (block := handle.read(BLOCK)) and not block.strip(b"\0") else last


def _file(file: StoredFile, info: tarfile.TarInfo) -> PartBlob | Reject | None:
    shown = _shown(file, info.name)
    path = PurePosixPath(info.name)
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        kind = "a link" if info.issym() or info.islnk() else "a sparse file" if info.issparse() else "no file"
        return Reject(shown, f"{kind}: only plain files are read")
    if info.size < 0:
        return Reject(shown, "its size is negative")
    if path.is_absolute() or ".." in path.parts or not path.name or not _is_plain(info.name):
        return Reject(shown, "the name is not a relative path, or is not text")
    return PartBlob(file, shown, info.offset_data, info.size)


def _shown(file: StoredFile, name: str) -> str:
    shown = f"{file.name}/{name.removeprefix('./')}"
    return shown if _is_plain(shown) else ascii(shown)[1:-1]


def _is_plain(name: str) -> bool:
    return is_text(name) and not any(unicodedata.category(character) == "Cc" for character in name)


def _next_header(handle: BinaryIO, start: int) -> int | None:
    """The byte of the first block from ``start`` on that is a header, or None. Headers stand at whole blocks."""
    position = -(-start // BLOCK) * BLOCK
    handle.seek(position)
    while len(block := handle.read(BLOCK)) == BLOCK:
        if _is_header(block):
            return position
        position += BLOCK
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]
    """Every header that was read; the stubs of ``tarfile`` leave it out."""


class _Headers:
    """The handle for ``tarfile``, which reads whole extended headers at once."""

    def __init__(self, handle: BinaryIO) -> None:
        self.seek = handle.seek
        self.tell = handle.tell
        self._read = handle.read

    def read(self, size: int) -> bytes:
        if size > _HEADER_LIMIT:
            raise ValueError("an extended header of this size is damage")
        return self._read(size)
