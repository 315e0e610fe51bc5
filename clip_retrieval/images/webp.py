"""A WebP before Pillow reads it: only the chunks that the pixels of its first frame depend on are kept.

Source: the WebP container specification (RFC 9649, section 2).
"""

from collections.abc import Iterator
from io import BytesIO

from PIL.WebPImagePlugin import WebPImageFile

_PIXELS = (b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_METADATA = {b"EXIF": 0x08, b"XMP ": 0x04}
"""What may hold the orientation, and its bit in the header of the extended format."""
_PROFILE = 0x20
_EXTENDED_BYTES = 10


def open_webp(data: bytes) -> WebPImageFile:
    """Open the first frame of a WebP; ``load`` decodes its pixels, and raises OSError if some are missing."""
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
    chunks = [kind + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2) for kind, body in kept]
    file = b"WEBP" + b"".join(chunks)
    return WebPImageFile(BytesIO(b"RIFF" + len(file).to_bytes(4, "little") + file))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Name, body and whether it is whole, of each chunk. The last one may be cut off."""
    position = 12
    while position + 8 <= len(data):
        start, size = position + 8, int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], data[start : start + size], start + size <= len(data)
        position = start + size + size % 2
