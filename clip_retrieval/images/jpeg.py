"""A JPEG before Pillow reads it: its segments bound the work, and damaged metadata costs nothing.

Source: ITU-T T.81, annex B (segments) and G.1.1.1 (scans of a progressive image).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL.JpegImagePlugin import JpegImageFile

from clip_retrieval.errors import ImageRejected

MAX_SCANS = 100
"""A progressive image has about 10. Every scan passes over all pixels, however few bytes it has."""
MAX_SEGMENTS = 10_000
"""A file of 20 MB has 320 segments of full length."""

_END = b"\xff\xd9"
# Neither stuffing (FF 00) nor a restart (FF D0 to FF D7): both are parts of the pixels' data.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_WITHOUT_BODY = frozenset({0x01, 0xD8})
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_JFIF, _APP1, _ADOBE = 0xE0, 0xE1, 0xEE
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
_ORIENTED = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
_MIDDLE_GREY = frozenset({127, 128})
"""128, or 127 where Pillow inverts ink."""
_STRIP = 64
# Decoded in place of missing data, these and the zeros that libjpeg puts there give different pixels. In an image with
# restart intervals, libjpeg goes on at a restart marker alone.
_FILLERS = tuple(
    byte * 1024 + b"".join(bytes([0xFF, 0xD0 + number % 8]) + byte * 128 for number in range(16))
    for byte in (b"\xaa", b"\x55")
)


@dataclass
class _Structure:
    """What the markers of the first image of a file say."""

    kept: list[bytes] = field(default_factory=list)
    """The file without its end marker and without the metadata that no pixel depends on."""
    ended: bool = False
    scans: int = 0
    progressive: bool = False
    sequential: bool = False
    """Whether a frame says that its coefficients come whole, block after block."""
    missing: set[tuple[int, int]] = field(default_factory=set)
    """Component and coefficient of what a progressive image has not transmitted to the last bit."""


def open_jpeg(data: bytes, check: Callable[[tuple[int, int]], None], *, allow_truncated: bool = False) -> JpegImageFile:
    """Open the first image of a JPEG; ``load`` decodes its pixels.

    An image is opened if all pixels are there, with or without its end marker, or if ``allow_truncated``: what is
    missing becomes grey. To find out, its pixels are decoded, after ``check`` was called with its size. Raises
    ImageRejected if pixels are missing or decoding would take too long.

    Of an image that was cut inside the last scan of a progressive file, or inside its last block, and closed with an
    end marker, nothing can be seen to be missing.
    """
    structure = _structure(data)
    whole = b"".join(structure.kept)
    opened = JpegImageFile(BytesIO(whole + _END))
    if allow_truncated:
        return opened
    check(opened.size)
    if structure.ended:
        opened.load()
        is_whole = not _may_be_cut(structure, opened) or _is_whole(opened, whole)
    else:
        is_whole = bool(structure.scans) and not structure.missing and _is_whole(opened, whole)
    if not is_whole:
        raise ImageRejected("does not decode as JPEG: it is truncated, and pixels are missing")
    return opened


def is_one_pass(data: bytes) -> bool:
    """Whether a JPEG decodes block after block: libjpeg then keeps no coefficients, and no pixels are compared.

    Raises ImageRejected as ``open_jpeg`` does.
    """
    found = _structure(data)
    return found.ended and found.sequential and not found.progressive and found.scans == 1


def _structure(data: bytes) -> _Structure:
    found = _Structure()
    kept_to = 0
    for number, (marker, start, end) in enumerate(_segments(data)):
        if number == MAX_SEGMENTS:
            raise ImageRejected(f"it has more than {MAX_SEGMENTS:,} segments; the limit bounds the time to decode it")
        body = data[start + 4 : end]
        if marker == _END_OF_IMAGE:
            found.ended = True
            found.kept.append(data[kept_to:start])
            return found
        if marker in _METADATA and not _is_needed(marker, body):
            found.kept.append(data[kept_to:start])
            kept_to = end
        elif marker in _PROGRESSIVE:
            found.progressive = True
            found.missing = {(component, place) for component in body[6::3] for place in range(64)}
        elif marker in _SEQUENTIAL:
            found.sequential = True
        elif marker == _START_OF_SCAN:
            _count_scan(found, body)
    found.kept.append(data[kept_to:])
    return found


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the end marker, without the data of scans and junk in between.

    A segment that is cut off ends with the data.
    """
    position = 2
    while (match := _MARKER.search(data, position)) is not None:
        marker, start, position = match[1][0], match.end() - 2, match.end()
        if marker in _WITHOUT_BODY:
            continue
        if marker != _END_OF_IMAGE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        yield marker, start, min(position, len(data))
        if marker == _END_OF_IMAGE:
            return


def _is_needed(marker: int, body: bytes) -> bool:
    """Whether pixels depend on a segment of metadata: on its colours (JFIF, Adobe) or on its orientation."""
    if marker == _APP1:
        return body.startswith(_ORIENTED)
    # libjpeg, too, passes over shorter ones
    return (marker == _JFIF and len(body) >= 14) or (marker == _ADOBE and len(body) >= 12)


def _count_scan(found: _Structure, body: bytes) -> None:
    found.scans += 1
    if found.scans > MAX_SCANS:
        raise ImageRejected(f"it has more than {MAX_SCANS} scans; the limit bounds the time to decode it")
    count = body[0] if body else 0
    if found.missing and len(body) >= 4 + 2 * count and body[3 + 2 * count] & 15 == 0:
        first, last = body[1 + 2 * count], body[2 + 2 * count]
        found.missing -= {(body[1 + 2 * n], place) for n in range(count) for place in range(first, last + 1)}


def _may_be_cut(structure: _Structure, opened: JpegImageFile) -> bool:
    """Whether a loaded image with its end marker is worth two more decodes, to see if it is whole.

    libjpeg makes the blocks that are missing at the end middle grey (jdhuff.c, jdphuff.c: "uniform gray for the
    remainder of the segment"); in an image of several scans those of the last components alone.
    """
    last = opened.getpixel((opened.width - 1, opened.height - 1))
    channels = last if isinstance(last, tuple) else (last,)
    is_grey = all(value in _MIDDLE_GREY for value in channels)
    return is_grey or bool(structure.missing) or (structure.scans > 1 and not structure.progressive)


def _is_whole(opened: JpegImageFile, data: bytes) -> bool:
    """Whether the pixels are those of ``opened`` whatever follows the data. Pillow does not tell what libjpeg saw."""
    opened.load()
    data += b"\0" * data.endswith(b"\xff")  # or the filler would make it a marker
    for filler in _FILLERS:
        with JpegImageFile(BytesIO(data + filler + _END)) as other:
            other.load()
            for top in range(0, opened.height, _STRIP):
                strip = (0, top, opened.width, min(top + _STRIP, opened.height))
                if opened.crop(strip).tobytes() != other.crop(strip).tobytes():
                    return False
    return True
