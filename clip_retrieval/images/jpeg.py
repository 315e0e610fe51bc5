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
_JFIF, _APP1, _ADOBE = 0xE0, 0xE1, 0xEE
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})
_ORIENTED = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0")
_STRIP = 64
# Decoded in place of missing data, these and the zeros that libjpeg puts there give different pixels.
_FILLERS = (b"\xaa" * 1024, b"\x55" * 1024)


@dataclass
class _Structure:
    """What the markers of the first image of a file say."""

    kept: list[bytes] = field(default_factory=list)
    """The file without its end marker and without the metadata that no pixel depends on."""
    ended: bool = False
    scans: int = 0
    missing: set[tuple[int, int]] = field(default_factory=set)
    """Component and coefficient of what a progressive image has not transmitted to the last bit."""


def open_jpeg(data: bytes, check: Callable[[tuple[int, int]], None], *, allow_truncated: bool = False) -> JpegImageFile:
    """Open the first image of a JPEG; ``load`` decodes its pixels.

    Without its end marker an image is opened if all pixels are there, or if ``allow_truncated``: what is missing
    becomes grey. To find out, its pixels are decoded, after ``check`` was called with its size. Raises ImageRejected
    if pixels are missing or decoding would take too long.
    """
    structure = _structure(data)
    whole = b"".join(structure.kept)
    opened = JpegImageFile(BytesIO(whole + _END))
    if structure.ended or allow_truncated:
        return opened
    check(opened.size)
    if not structure.scans or structure.missing or not _is_whole(opened, whole):
        raise ImageRejected("does not decode as JPEG: it is truncated, and pixels are missing")
    return opened


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
            found.missing = {(component, place) for component in body[6::3] for place in range(64)}
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
