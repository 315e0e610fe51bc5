"""JPEG XL by libjxl, which the extra ``images`` brings.

The package decodes all that it is given at once, so the header is read here before: the size bounds the work. Only the
codestream is passed on: metadata around it cannot fail, and cannot contradict its orientation. Source: ISO/IEC
18181-1, D.2 and D.3 (headers), 18181-2, section 9 (boxes).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from pillow_jxl import Decoder

from clip_retrieval.errors import ImageRejected

MAX_EXTRA_CHANNELS = 4
"""As in level 5 of the standard; each is decoded whole."""

_CODESTREAM = b"\xff\x0a"
_RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))


def open_jxl(data: bytes, check: Callable[[tuple[int, int]], None]) -> Image.Image:
    """Decode a JPEG XL, upright; the mode is one of L, LA, RGB, RGBA, I;16 and F.

    ``check`` is called with the size before any pixel is decoded. Raises ImageRejected if it is an animation, of which
    the package gives the last frame, has many extra channels, or does not decode.
    """
    codestream = data if data.startswith(_CODESTREAM) else b"".join(_codestream(data))
    header = _header(codestream)
    check(header.size)
    if header.animated:
        raise ImageRejected("animations in JPEG XL are not read; convert it to WebP, or to an image without frames")
    if header.extra_channels > MAX_EXTRA_CHANNELS:
        raise ImageRejected(f"it has {header.extra_channels} extra channels; at most {MAX_EXTRA_CHANNELS} are decoded")
    try:
        _, info, pixels, *_ = Decoder(num_threads=0)(codestream)
    except RuntimeError as error:  # its message is about how libjxl was compiled
        raise ImageRejected("does not decode as JPEG XL: it is truncated or damaged") from error
    size = info.width, info.height
    if info.mode == "F;16":
        return Image.fromarray(np.frombuffer(pixels, np.float16).astype(np.float32).reshape(size[::-1]))
    return Image.frombytes(info.mode, size, pixels)


def _codestream(data: bytes) -> Iterator[bytes]:
    """The parts of the codestream, from the boxes of a container."""
    position = 0
    while position + 8 <= len(data):
        size, kind, start = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8], 8
        if size == 1:
            size, start = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        end = position + max(size, start) if size else len(data)
        if kind == b"jxlc":
            yield data[position + start : end]
        elif kind == b"jxlp":  # its first four bytes are a number
            yield data[position + start + 4 : end]
        position = end


class _Bits:
    """The bits of a header, the lowest first. Behind the end they are zeros."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value

    def choose(self, *choices: tuple[int, int]) -> int:
        """One of four pairs of a number and of how many bits are added to it."""
        base, count = choices[self.take(2)]
        return base + self.take(count)


class _Header(NamedTuple):
    """The size in pixels, before the orientation is applied, and what else bounds the work."""

    size: tuple[int, int]
    animated: bool = False
    extra_channels: int = 0


def _header(codestream: bytes) -> _Header:
    bits = _Bits(codestream[2:64])
    size = _size(bits)
    if bits.take(1):  # all as by default
        return _Header(size)
    animated = False
    if bits.take(1):
        bits.take(3)
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            _preview_size(bits)
        if animated := bool(bits.take(1)):
            bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
            bits.take(1)
    floats = bits.take(1)
    bits.choose(*([(32, 0), (16, 0), (24, 0), (1, 6)] if floats else [(8, 0), (10, 0), (12, 0), (1, 6)]))
    bits.take(4 * floats)
    bits.take(1)
    return _Header(size, animated, bits.choose((0, 0), (1, 0), (2, 4), (1, 12)))


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = 8 * (1 + bits.take(5)) if small else bits.choose(*_SIDE)
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return 8 * (1 + bits.take(5)) if small else bits.choose(*_SIDE), height


def _preview_size(bits: _Bits) -> None:
    choices = ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.take(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.choose(*choices)
    if not bits.take(3):
        bits.choose(*choices)
