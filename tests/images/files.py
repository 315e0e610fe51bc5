"""Small image files for tests, and the distance of two images."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

RED, WHITE = (255, 0, 0), (255, 255, 255)
PHOTO = Image.fromarray(
    np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
)  # no symmetry: every turn of it differs


def encode(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two images of one size, in grey levels."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header says anything, and whose pixels are not those."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = ((b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in (header, *chunks, *end))


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
