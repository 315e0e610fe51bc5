"""A PNG before Pillow reads it: only the chunks that its pixels depend on are kept.

Pillow rejects a PNG for a text, a colour profile or a checksum beside the pixels. Viewers show it. Of an animation the
default image is read. Source: PNG, third edition, sections 5 (chunks), 7.2 (rows) and 8 (passes).
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from clip_retrieval.errors import ImageRejected

MAX_CHUNKS = 100_000
"""A file of 20 MB with chunks of 8 KiB, as most programs write them, has 2,560."""
MAX_METADATA = 2**20
"""The most bytes, once inflated, of the metadata that may hold the orientation."""

_SIGNATURE_BYTES = 8
_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
_TRANSPARENCY = {0: (2, 2), 2: (6, 6), _PALETTE: (1, 256)}
"""By type of colour, the least and the most bytes of a tRNS chunk."""
_XMP, _RAW_EXIF = b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass: the first column and row, and the distance of its columns and rows."""
_STEP = 2**16


class _Chunk(NamedTuple):
    kind: bytes
    body: bytes
    checksum: bytes


def open_png(data: bytes) -> PngImageFile:
    """Open the default image of a PNG; ``load`` decodes its pixels, and raises OSError if some are missing.

    Raises ImageRejected if reading its chunks would take too long.
    """
    chunks, _ = _needed(data)
    return _opened(chunks)


def open_truncated_png(data: bytes) -> tuple[PngImageFile, Image.Image | None]:
    """Open a PNG of which pixels may be missing, and a mask (mode L) that is white where they are; None if none are.

    A row that is there in part counts as missing. The caller has checked the size that the header says. Raises
    zlib.error if the data is damaged before it ends.
    """
    chunks, ended = _needed(data)
    header = next((chunk.body for chunk in chunks if chunk.kind == b"IHDR"), b"")
    if ended or not header:
        return _opened(chunks), None
    completed, missing = _completed([chunk.body for chunk in chunks if chunk.kind == b"IDAT"], header)
    others = [chunk for chunk in chunks if chunk.kind not in (b"IDAT", b"IEND")]
    return _opened([*others, _chunk(b"IDAT", completed), _chunk(b"IEND", b"")]), Image.fromarray(missing)


def _opened(chunks: list[_Chunk]) -> PngImageFile:
    file = BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, 2)
    for kind, body, checksum in chunks:
        file.write(struct.pack(">I", len(body)) + kind)
        file.write(body)
        file.write(checksum)
    file.seek(0)
    return PngImageFile(file)


def _needed(data: bytes) -> tuple[list[_Chunk], bool]:
    """The chunks that the pixels depend on, up to the end mark, which is there in any case; and whether it was."""
    first: list[_Chunk] = []
    pixels: list[_Chunk] = []
    colour, ended = -1, False
    for number, chunk in enumerate(_chunks(data)):
        if number == MAX_CHUNKS:
            raise ImageRejected(f"it has more than {MAX_CHUNKS:,} chunks; the limit bounds the time to read it")
        if chunk.kind == b"IHDR" and colour < 0 and len(chunk.body) == 13:
            colour = chunk.body[9]
            first.append(chunk)
        elif chunk.kind == b"IDAT":
            pixels.append(chunk)
        elif chunk.kind == b"IEND":
            ended = True
            break
        elif (chunk.kind == b"PLTE" and colour == _PALETTE) or _is_used(chunk, colour):
            first.append(chunk)
    return [*first, *pixels, _chunk(b"IEND", b"")], ended


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks of a file up to the first bytes that are none. The last one may be cut off."""
    position = _SIGNATURE_BYTES
    while len(head := data[position : position + 8]) == 8 and head[4:].isalpha():
        end = position + 8 + int.from_bytes(head[:4], "big")
        yield _Chunk(head[4:], data[position + 8 : end], data[end : end + 4].ljust(4, b"\0"))
        position = end + 4


def _chunk(kind: bytes, body: bytes) -> _Chunk:
    return _Chunk(kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


def _is_used(chunk: _Chunk, colour: int) -> bool:
    """Whether an ancillary chunk is used: it is whole, and has transparency or the orientation."""
    kind, body, checksum = chunk
    least, most = _TRANSPARENCY.get(colour, (1, 0))
    match kind:
        case b"tRNS":
            fits = least <= len(body) <= most
        case b"eXIf":
            fits = len(body) <= MAX_METADATA
        case b"iTXt":
            fits = body.startswith(_XMP) and len(body) <= MAX_METADATA
        case b"tEXt" | b"zTXt":
            fits = body.startswith(_RAW_EXIF) and _is_small(body, deflated=kind == b"zTXt")
        case _:
            fits = False
    return fits and _chunk(kind, body).checksum == checksum


def _is_small(body: bytes, *, deflated: bool) -> bool:
    if not deflated:
        return len(body) <= MAX_METADATA
    try:
        return len(zlib.decompressobj().decompress(body[len(_RAW_EXIF) + 1 :], MAX_METADATA)) < MAX_METADATA
    except zlib.error:
        return False


def _completed(bodies: list[bytes], header: bytes) -> tuple[bytes, NDArray[np.uint8]]:
    """The compressed rows with zeros in place of what is missing, and 255 where it is: shape (height, width)."""
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    missing = np.zeros((height, width), np.uint8)
    passes = [(missing[row::down, column::across]) for column, row, across, down in _ADAM7 if header[12]] or [missing]
    passes = [part for part in passes if part.size]
    lengths = [1 + -(-part.shape[1] * _CHANNELS[colour] * depth // 8) for part in passes]
    wanted = sum(length * len(part) for length, part in zip(lengths, passes, strict=True))
    source, sink = zlib.decompressobj(), zlib.compressobj(1)
    pieces, there = [], 0
    for body in bodies:
        for start in range(0, len(body), _STEP):
            if there < wanted:
                rows = source.decompress(body[start : start + _STEP])[: wanted - there]
                there += len(rows)
                pieces.append(sink.compress(rows))
    pieces += [sink.compress(bytes(min(_STEP, wanted - at))) for at in range(there, wanted, _STEP)]
    for length, part in zip(lengths, passes, strict=True):
        whole = min(there // length, len(part))
        there = max(0, there - length * len(part))
        part[whole:] = 255
    return b"".join([*pieces, sink.flush()]), missing
