"""The sizes that frames of HEVC can have, by their sequence parameter sets.

Source: ITU-T H.265, sections 7.3.1 (NAL units), 7.3.2.2 (sequence parameter set) and 7.3.3 (profile, tier and level).
"""

from collections.abc import Callable, Iterator

from clip_retrieval.images.bits import Bits

_SEQUENCE = 33
_PADDING = 63
"""Pixels that an encoder may add to a side, so that it has whole coding blocks."""
_HEADER_BYTES = 512
"""The size stands nearer to the beginning."""


def frame_sizes(data: bytes, length_bytes: int, step: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """Width and height by each parameter set in ``data``: NAL units, each behind its length in ``length_bytes``.

    What an image may have been padded by is taken off.
    ``step`` is called for each unit; it may raise, so as to bound the work.
    """
    position = 0
    while (start := position + length_bytes) < len(data):
        step()
        position = start + int.from_bytes(data[position:start], "big")
        unit = data[start : min(position, start + _HEADER_BYTES)]
        if unit and unit[0] >> 1 & 63 == _SEQUENCE:
            yield _size(unit)


def sizes_of_configuration(body: bytes, step: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """The same for the arrays of units in an ``hvcC`` box (ISO/IEC 14496-15, 8.3.3.1)."""
    position = 23
    for _ in range(body[22] if len(body) > 22 else 0):
        count = int.from_bytes(body[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            length = int.from_bytes(body[position : position + 2], "big")
            yield from frame_sizes(body[position : position + 2 + length], 2, step)
            position += 2 + length
            if position >= len(body):
                return


def _size(unit: bytes) -> tuple[int, int]:
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 88 + 8)  # nesting; profile, tier and level
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.read(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)
    bits.exponential()
    if bits.exponential() == 3:  # chroma_format_idc
        bits.read(1)
    return max(bits.exponential() - _PADDING, 1), max(bits.exponential() - _PADDING, 1)
