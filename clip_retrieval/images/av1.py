"""The sizes that frames of AV1 can have, by the headers before their pixels.

Source: AV1 Bitstream & Decoding Process Specification, sections 5.3 (OBUs), 5.5 (sequence header) and 5.9.2 (frame
header).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clip_retrieval.images.bits import Bits

_HEADER_BYTES = 512
"""No sequence header, and no beginning of a frame header, is longer."""
_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SELECT = 2


@dataclass(frozen=True, slots=True)
class _Sequence:
    size: tuple[int, int]
    widest: tuple[int, int]
    """The largest size that a frame header can say in the bits that it has for that."""
    has_reduced_frames: bool
    """A still image, whose frame header says no size."""
    time_bits: int
    """Bits of the time in the header of a shown frame; 0 if it has none."""
    screen_content: int
    integer_motion: int
    id_bits: int


def frame_sizes(data: bytes, step: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """Width and height of what the units of ``data`` can decode to, for each sequence header.

    ``step`` is called for each unit; it may raise, so as to bound the work.
    A frame with a size of its own may not be larger than its sequence says. Decoders do not hold it to that, so the
    largest size that its header can say is given, too.
    """
    sequence: _Sequence | None = None
    for kind, start, end in _units(data):
        step()
        head = data[start : min(end, start + _HEADER_BYTES)]
        if kind == _SEQUENCE:
            sequence = _sequence(Bits(head))
            yield sequence.size
        elif kind in {_FRAME_HEADER, _FRAME} and sequence is not None and _has_own_size(Bits(head), sequence):
            yield sequence.widest


def _units(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each unit."""
    position = 0
    while position < len(data):
        header, end = data[position], len(data)
        position += 2 if header & 4 else 1
        if header & 2:
            size = 0
            for place in range(8):
                byte = data[position] if position < len(data) else 0
                position += 1
                size |= (byte & 127) << 7 * place
                if byte < 128:
                    break
            end = min(position + size, len(data))
        yield header >> 3 & 15, position, end
        position = end


def _sequence(bits: Bits) -> _Sequence:
    bits.read(4)  # profile, still_picture
    reduced = bits.flag()
    time_bits = 0
    if reduced:
        bits.read(5)
    else:
        time_bits = _operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    size = (bits.read(width_bits) + 1, bits.read(height_bits) + 1)
    id_bits = 0
    screen_content = integer_motion = _SELECT
    if not reduced and bits.flag():
        id_bits = bits.read(4) + 2
        id_bits += bits.read(3) + 1
    bits.read(3)  # superblocks, filter_intra, intra_edge_filter
    if not reduced:
        bits.read(4)  # interintra, masked, warped, dual_filter
        if bits.flag():
            bits.read(2)  # order hints
        screen_content = _SELECT if bits.flag() else bits.read(1)
        if screen_content:
            integer_motion = _SELECT if bits.flag() else bits.read(1)
    widest = (1 << width_bits, 1 << height_bits)
    return _Sequence(size, widest, reduced, time_bits, screen_content, integer_motion, id_bits)


def _operating_points(bits: Bits) -> int:
    """Passes over the times and the operating points; returns ``time_bits`` of the sequence."""
    time_bits = delay_bits = 0
    if bits.flag():  # timing_info
        bits.read(64)
        is_even = bits.flag()
        if is_even:
            bits.exponential()
        if bits.flag():  # decoder_model_info
            delay_bits = bits.read(5) + 1
            bits.read(37)
            time_bits = 0 if is_even else bits.read(5) + 1
            if is_even:
                bits.read(5)
    has_display_delay = bits.flag()
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.flag():
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.flag():
            bits.read(4)
    return time_bits


def _has_own_size(bits: Bits, sequence: _Sequence) -> bool:
    if sequence.has_reduced_frames or bits.flag():  # or an earlier frame is shown again
        return False
    kind, is_shown = bits.read(2), bits.flag()
    bits.read(sequence.time_bits if is_shown else 1)
    if kind == _SWITCH_FRAME:
        return True
    if not (kind == _KEY_FRAME and is_shown):
        bits.read(1)  # error_resilient_mode
    bits.read(1)  # disable_cdf_update
    has_screen_content = bits.read(1) if sequence.screen_content == _SELECT else sequence.screen_content
    if has_screen_content and sequence.integer_motion == _SELECT:
        bits.read(1)
    bits.read(sequence.id_bits)
    return bits.flag()
