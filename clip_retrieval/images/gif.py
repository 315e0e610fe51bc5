"""A GIF before Pillow reads it: only what its first image needs is kept.

Comments and the extensions of programs are passed over: Pillow joins them, which takes quadratic time. Source: GIF89a,
sections 17 to 26.
"""

from io import BytesIO

from PIL.GifImagePlugin import GifImageFile

from clip_retrieval.errors import ImageRejected

MAX_BLOCKS = 200_000
"""Blocks before the first image; metadata of 20 MB in blocks of full length has 82,000."""

_HEADER_BYTES = 13
_IMAGE, _EXTENSION, _END, _GRAPHIC_CONTROL = 0x2C, 0x21, 0x3B, 0xF9


def open_gif(data: bytes) -> GifImageFile:
    """Open a GIF at its first image; ``load`` decodes its pixels.

    Raises ImageRejected if there is no image, or reading the blocks before it would take too long.
    """
    flags = data[10] if len(data) >= _HEADER_BYTES else 0
    position = _HEADER_BYTES + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    header, control, blocks = data[:position], b"", 0
    while position < len(data) and data[position] not in (_IMAGE, _END):
        start = position
        if data[start] != _EXTENSION:  # stray bytes between blocks
            position, blocks = position + 1, blocks + 1
        else:
            position += 2
            while position < len(data) and (size := data[position]) and blocks <= MAX_BLOCKS:
                position, blocks = position + 1 + size, blocks + 1
            position, blocks = position + 1, blocks + 1
            if data[start + 1 : start + 2] == bytes([_GRAPHIC_CONTROL]):
                control = data[start:position]
        if blocks > MAX_BLOCKS:
            raise ImageRejected(f"it has more than {MAX_BLOCKS:,} blocks; the limit bounds the time to read it")
    if data[position : position + 1] != bytes([_IMAGE]):
        raise ImageRejected("does not decode as GIF: it has no image")
    return GifImageFile(BytesIO(header + control + data[position:]))
