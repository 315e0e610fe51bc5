"""HEIC and AVIF before they are decoded: a container that says a small size can hold a frame of a large one.

Source: ISO/IEC 14496-12, sections 4.2 (boxes), 8.11.3 (iloc), 8.11.6 (iinf), 8.7 (stsz, stco); ISO/IEC 23008-12, 6.5.3
(ispe), 6.6.2.3 (grid and overlay).
"""

from collections.abc import Iterator

from clip_retrieval.errors import ImageRejected
from clip_retrieval.images import av1, hevc

MAX_PARTS = 20_000
"""Boxes, items and units of codecs. A phone's image of 48 megapixels has about 2,000."""
_MAX_DEPTH = 12

_PARENTS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8}
"""Boxes that hold boxes, and the bytes before these."""
_CODECS = frozenset({b"av01", b"hvc1", b"hev1"})
_ENTRY_BYTES = 78
"""Bytes of a track's entry for a codec, before the boxes in it."""
_CANVASES = {b"grid": 4, b"iovl": 10}
"""Items that are made of others, and where in their data the size of the whole stands."""


class _Work:
    """Counts the parts that were looked at, and the bytes."""

    def __init__(self, size: int) -> None:
        self._parts, self._bytes = MAX_PARTS, 4 * size

    def step(self, size: int = 0) -> None:
        """Raises ImageRejected for more than a file that is no attack has: its items hardly overlap."""
        self._parts -= 1
        self._bytes -= size
        if min(self._parts, self._bytes) < 0:
            raise ImageRejected(
                f"its container has more than {MAX_PARTS:,} parts; the limit bounds the time to decode it"
            )


Boxes = dict[bytes, list[tuple[int, int]]]
"""By their kind, the start and the end of the body of each box that was found."""


def _walk(data: bytes, start: int, end: int, work: _Work, found: Boxes, above: tuple[bytes, ...] = ()) -> Boxes:
    while start + 8 <= end:
        work.step()
        size, kind = _number(data, start, 4), data[start + 4 : start + 8]
        head = 16 if size == 1 else 8
        size = _number(data, start + 8, 8) if size == 1 else size or end - start
        if size < head:
            break
        body, after = start + head, min(start + size, end)
        found.setdefault(kind, []).append((body, after))
        inner = _PARENTS.get(kind, _ENTRY_BYTES if kind in _CODECS and above[-1:] == (b"stsd",) else None)
        if inner is not None and len(above) < _MAX_DEPTH:
            _walk(data, body + inner, after, work, found, (*above, kind))
        start += size
    return found


def coded_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of everything that decoding can make: what the container says, and what the codecs say.

    Items of AV1 and HEVC, grids and overlays are looked at, and the first frame of each track. Raises ImageRejected
    for a container of very many parts.
    """
    work = _Work(len(data))
    boxes = _walk(data, 0, len(data), work, {})
    for start, _ in boxes.get(b"ispe", ()):
        yield _number(data, start + 4, 4), _number(data, start + 8, 4)
    lengths = {4}
    for start, end in boxes.get(b"hvcC", ()):
        lengths.add((_number(data, start + 21, 1) & 3) + 1)
        yield from hevc.sizes_of_configuration(data[start:end], work.step)
    for start, end in boxes.get(b"av1C", ()):
        yield from av1.frame_sizes(data[start + 4 : end], work.step)
    kinds: dict[int, set[bytes]] = {}
    for number, kind in _kinds(data, boxes, work):  # a number that comes twice may mean either
        kinds.setdefault(number, set()).add(kind)
    for number, coded in _items(data, boxes, work):
        for kind in kinds.get(number, ()):
            yield from _sizes_of_item(kind, coded, lengths, work)
    for coded in _first_frames(data, boxes, work):
        for kind in _CODECS & boxes.keys():
            yield from _sizes_of_item(kind, coded, lengths, work)


def _sizes_of_item(kind: bytes, coded: bytes, lengths: set[int], work: _Work) -> Iterator[tuple[int, int]]:
    if kind == b"av01":
        yield from av1.frame_sizes(coded, work.step)
    elif kind in _CODECS:
        for length in lengths:
            yield from hevc.frame_sizes(coded, length, work.step)
    elif kind in _CANVASES and len(coded) > 1:
        at, wide = _CANVASES[kind], 4 if coded[1] & 1 else 2
        yield _number(coded, at, wide), _number(coded, at + wide, wide)


def _kinds(data: bytes, boxes: Boxes, work: _Work) -> Iterator[tuple[int, bytes]]:
    """The number and the kind of each item."""
    for start, end in boxes.get(b"iinf", ()):
        wide = 4 if _number(data, start, 1) else 2
        for body, _ in _walk(data, start + 4 + wide, end, work, {}).get(b"infe", ()):
            wide = 4 if _number(data, body, 1) > 2 else 2
            yield _number(data, body + 4, wide), data[body + 6 + wide : body + 10 + wide]


def _items(data: bytes, boxes: Boxes, work: _Work) -> Iterator[tuple[int, bytes]]:
    """The number and the data of each item; of an item inside the metadata, what it is in each box of such data."""
    inline = boxes.get(b"idat", [])
    for start, end in boxes.get(b"iloc", ()):
        version, sizes = _number(data, start, 1), _number(data, start + 4, 2)
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        at = start + 6
        count, at = _number(data, at, wide), at + wide
        for _ in range(count):
            if at >= end:
                return
            work.step()
            number, at = _number(data, at, wide), at + wide
            is_inline = version > 0 and bool(_number(data, at, 2) & 15)
            at += 4 if version > 0 else 2
            base, at = _number(data, at, base_size), at + base_size
            extents, at = _number(data, at, 2), at + 2
            parts: list[list[bytes]] = [[] for _ in (inline if is_inline else [()])]
            for _ in range(extents):
                at += index_size if version > 0 else 0
                offset, at = base + _number(data, at, offset_size), at + offset_size
                length, at = _number(data, at, length_size), at + length_size
                for part, (low, high) in zip(parts, inline if is_inline else [(0, len(data))], strict=True):
                    first = low + offset
                    part.append(data[first : min(first + length, high) if length else high])
                    work.step(len(part[-1]))
            for part in parts:
                yield number, b"".join(part)


def _first_frames(data: bytes, boxes: Boxes, work: _Work) -> Iterator[bytes]:
    """The data of the first frame of each track; the tables of a track follow each other in one order."""
    offsets = [_number(data, start + 8, 4) for start, _ in boxes.get(b"stco", ())]
    offsets += [_number(data, start + 8, 8) for start, _ in boxes.get(b"co64", ())]
    sizes = [_number(data, start + 4, 4) or _number(data, start + 12, 4) for start, _ in boxes.get(b"stsz", ())]
    largest = max(sizes, default=0)
    for offset in offsets:
        coded = data[offset : offset + largest]
        work.step(len(coded))
        yield coded


def _number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "big")
