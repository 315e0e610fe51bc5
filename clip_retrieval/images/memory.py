"""How much memory decoding takes, before a pixel is decoded: by the format, the size and how the file is coded.

Measured as the peak of ``decode_image`` in a process of its own (Pillow 13.0, pillow-heif 1.8, 5.8 megapixels), the
worst colours of each format, rounded up; ``tests/serving/test_decoders.py`` decodes one of each within it. Pillow has
four bytes for each pixel, and twice as many while colours are converted. Beside that are a frame of the codec, and for
a JPEG in several passes the coefficients of the whole image.
"""

from clip_retrieval.images.jpeg import is_one_pass

_BYTES_PER_PIXEL = {
    "JPEG": 16,
    "PNG": 16,
    "GIF": 14,
    "BMP": 14,
    "DIB": 14,
    "TIFF": 24,
    "WebP": 24,
    "AVIF": 24,
    "HEIC": 24,
    "JPEG XL": 32,
}
_ONE_PASS = 10
"""For a JPEG whose blocks come one after the other, as cameras write them."""
_COPIES = 4
"""A file is there up to four times: as it came, twice while what no pixel depends on is taken out, and in the codec."""
_CODEC_BYTES = 8 * 2**20
"""Tables and buffers that do not grow with the image."""


def memory_to_decode(format_name: str, data: bytes, size: tuple[int, int]) -> int:
    """The bytes that are needed to decode ``data``, of which some part has ``size`` (width, height) in pixels."""
    width, height = size
    each = _ONE_PASS if format_name == "JPEG" and is_one_pass(data) else _BYTES_PER_PIXEL[format_name]
    return width * height * each + memory_of_file(len(data))


def memory_of_file(size: int) -> int:
    """The bytes that reading the headers of a file of ``size`` bytes takes."""
    return _COPIES * size + _CODEC_BYTES
