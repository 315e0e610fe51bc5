"""Images that no collection has: the bundled photographs, each with a number painted into its corner."""

from io import BytesIO

import numpy as np
from PIL import Image

from clip_retrieval.images.decode import content_hash, decode_image
from scripts.common.paths import sample_images

BLOCK = 16
"""Pixels of a side of the square that shows one byte of the number, so that JPEG keeps different numbers apart."""
BYTES = 4


class NewImages:
    """JPEG files of the photographs; files of different numbers below 2³² have different pixels."""

    def __init__(self) -> None:
        self._photographs = [np.asarray(decode_image(path.read_bytes())) for path in sample_images()]

    def jpeg(self, number: int) -> bytes:
        """The file of this number, about as large as the photograph's own."""
        pixels = self._photographs[number % len(self._photographs)].copy()
        for place, level in enumerate(number.to_bytes(BYTES, "big")):
            pixels[:BLOCK, place * BLOCK : (place + 1) * BLOCK] = level
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        return file.getvalue()


def hash_of(jpeg: bytes) -> str:
    """The hash of its pixels, as the service gives it."""
    return content_hash(decode_image(jpeg))
