"""A WebP before Pillow reads it: only the chunks that the pixels of its first frame depend on are kept.

Source: the WebP container specification (RFC 9649, section 2).
"""

from collections.abc import Callable, Iterator
from io import BytesIO

from PIL.WebPImagePlugin import WebPImageFile

_PIXELS = (b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04}
"""What may hold the orientation, and its bit in the header of the extended format."""
_PROFILE = 0x20
_EXTENDED_BYTES = 10


def open_webp(data: bytes, check: Callable[[tuple[int, int]], None]) -> WebPImageFile:
    """Open the first frame of a WebP; ``load`` decodes its pixels, and raises OSError if some are missing.

    ``check`` is called with each size in its headers: libwebp allocates two of its canvases when it opens a file.
    """
    kept: list[tuple[bytes, bytes]] = []
    header: bytes | None = None
    for kind, body, whole in _chunks(data):
        if kind == b"VP8X" and header is None:
            header = body
        elif (kind in _METADATA and whole) or kind in _PIXELS:
            kept.append((kind, body))
        if kind == b"ANMF":
            break
    if header is not None and len(header) == _EXTENDED_BYTES:
        flags = header[0] & ~(_PROFILE | sum(_METADATA.values()))
        flags |= sum(_METADATA[kind] for kind in {kind for kind, _ in kept} & _METADATA.keys())
        kept.insert(0, (b"VP8X", bytes([flags]) + header[1:]))
    for kind, body in kept:
        if (size := _size(kind, body)) is not None:
            check(size)
    chunks = [kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2) for kind, body in kept]
    file = b"WEBP" + b"".join(chunks)
    return WebPImageFile(BytesIO(b"RIFF" + len(file).to_bytes(4, "little") + file))


def _size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, where a chunk has them (RFC 9649, sections 2.7 and 2.7.1.1, 3.4; RFC 6386, 9.1)."""

    def at(start: int, count: int) -> int:
        return int.from_bytes(body[start : start + count], "little")

    match kind:
        case b"VP8X":
            return at(4, 3) + 1, at(7, 3) + 1
        case b"ANMF":
            return at(6, 3) + 1, at(9, 3) + 1
        case b"VP8L":
            return (at(1, 4) & 0x3FFF) + 1, (at(1, 4) >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return at(6, 2) & 0x3FFF, at(8, 2) & 0x3FFF
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Name, body and whether it is whole, of each chunk. The last one may be cut off."""
    position = 12
    while position + 8 <= len(data):
        start, size = position + 8, int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], data[start : start + size], start + size <= len(data)
        position = start + size + size % 2
