"""From the bytes of an image to upright RGB pixels, or the reason why the image is rejected.

Every image enters here: the images of a collection and the uploads to the service. An image decodes completely or is
rejected. ``decode_image`` raises only ImageRejected, for any bytes, and may be called from any thread.

Colours are used as they are stored: ICC profiles are not applied, as in CLIP's own preprocessing. JPEGs are decoded
at full size: Pillow's draft mode is several times faster on large photographs, but it changes the pixels.
"""

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, TypeAlias

from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile

from clip_retrieval.errors import ImageRejected, ImageTooLarge, NotAnImage
from clip_retrieval.images.colours import to_rgb
from clip_retrieval.images.gif import open_gif
from clip_retrieval.images.jpeg import open_jpeg
from clip_retrieval.images.kinds import HEAD_BYTES, Kind, Reading, kind_of, readable_formats
from clip_retrieval.images.media_boxes import coded_sizes
from clip_retrieval.images.memory import memory_to_decode
from clip_retrieval.images.png import open_png, open_truncated_png
from clip_retrieval.images.tiff import open_tiff
from clip_retrieval.images.tiff_directory import camera_raw
from clip_retrieval.images.webp import open_webp
from clip_retrieval.records import ImageBlob


@dataclass(frozen=True)
class Limits:
    """The largest image that is accepted; ``max_pixels`` is the width times the height of one frame.

    ``allow_truncated`` accepts a JPEG or a PNG whose last pixels are missing; they become grey. Pillow rejects some
    formats above twice its own ``Image.MAX_IMAGE_PIXELS``, whatever ``max_pixels`` says.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 65_535
    allow_truncated: bool = False

    def check(self, size: tuple[int, int]) -> None:
        """Raise ImageRejected if an image of this width and height is too large."""
        width, height = size
        if width * height > self.max_pixels:
            raise self.bomb(f"{width} x {height}")
        if max(size) > self.max_side:
            raise ImageRejected(
                f"{width} x {height} has a side over the limit of {self.max_side:,} pixels (decompression bomb)"
            )

    def bomb(self, size: str) -> ImageRejected:
        return ImageRejected(f"{size} is over the limit of {self.max_pixels:,} pixels (decompression bomb)")


DEFAULT_LIMITS = Limits()

Afford: TypeAlias = Callable[[int], None]
"""Called with the bytes that decoding will take at most, before they are allocated. Raises ImageRejected if they are
too many; it may wait until they are there."""


@dataclass(frozen=True)
class _Affordable(Limits):
    """Limits that also ask for the memory that a size takes."""

    afford: Callable[[tuple[int, int]], None] = lambda _: None

    def check(self, size: tuple[int, int]) -> None:
        super().check(size)
        self.afford(size)


Opened: TypeAlias = tuple[Image.Image, Image.Image | None]
"""An image whose pixels ``load`` decodes, and a mask of its missing pixels."""


def _jpeg(data: bytes, limits: Limits) -> Opened:
    return open_jpeg(data, limits.check, allow_truncated=limits.allow_truncated), None


def _png(data: bytes, limits: Limits) -> Opened:
    opened = open_png(data)
    limits.check(opened.size)
    return open_truncated_png(data) if limits.allow_truncated else (opened, None)


def _avif(data: bytes, limits: Limits) -> Opened:
    for size in coded_sizes(data):
        limits.check(size)
    return AvifImageFile(BytesIO(data)), None


def _heif(data: bytes, limits: Limits) -> Opened:
    from clip_retrieval.images.heif import open_heif

    return open_heif(data, limits.check), None


def _jxl(data: bytes, limits: Limits) -> Opened:
    from clip_retrieval.images.jxl import open_jxl

    return open_jxl(data, limits.check), None


# Image.open would warn about sizes before they are checked here, and would read a JPEG that contains a second image as
# another format.
_READERS: dict[str, Callable[[bytes, Limits], Opened]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": lambda data, _: (open_gif(data), None),
    "BMP": lambda data, _: (BmpImageFile(BytesIO(data)), None),
    "DIB": lambda data, _: (DibImageFile(BytesIO(data)), None),
    "TIFF": lambda data, limits: (open_tiff(data, limits.check), None),
    "WebP": lambda data, limits: (open_webp(data, limits.check), None),
    "AVIF": _avif,
    "HEIC": _heif,
    "JPEG XL": _jxl,
}

_MEANINGS = {
    r"not identified by this driver": "its header gives no size or colours",
    r"image file is truncated( \(.*\))?|Truncated File Read": "it is truncated, and pixels are missing",
}
"""What messages of Pillow mean for a person."""

_SMALL = 20
"""Bytes. No image is smaller."""
_GREY = (128, 128, 128)
_PILLOW = re.compile(r"PIL\.")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(
    data: bytes, limits: Limits = DEFAULT_LIMITS, name: str = "", *, afford: Afford | None = None
) -> Image.Image:
    """Decode an image to upright RGB of its full size. Of several frames only the first is read.

    ``colours.py`` says how colours become RGB. The orientation that the file gives is applied, and the result carries
    no metadata of the file. ``name`` tells a camera's raw file from a TIFF where its bytes do not. ``afford`` is asked
    for memory for each size that the headers give.

    Raises ImageTooLarge over the limit for bytes; NotAnImage if the format is none of those that ``kinds.py`` lists or
    needs an extra; ImageRejected if the image has too many pixels (the header tells, before any pixel is decoded),
    would take too long, or is truncated or damaged.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the file is over the limit of {limits.max_bytes:,} bytes")
    format_name = _format(data, name)
    if afford is not None:
        ask = afford
        limits = _Affordable(**asdict(limits), afford=lambda size: ask(memory_to_decode(format_name, data, size)))
    _silence_pillow()
    try:
        opened, missing = _READERS[format_name](data, limits)
        with opened:
            limits.check(opened.size)
            opened.load()
            return _upright_rgb(opened, missing)
    except ImageRejected:
        raise
    except Image.DecompressionBombError as error:
        raise limits.bomb("its size") from error
    except Exception as error:  # damaged files raise nearly anything inside Pillow
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        for words, meaning in _MEANINGS.items():
            reason = re.sub(words, meaning, reason)
        raise ImageRejected(f"does not decode as {format_name}: {reason}") from error


def _format(data: bytes, name: str) -> str:
    if not data:
        raise NotAnImage("the file is empty")
    kind = kind_of(data[:HEAD_BYTES], name)
    if kind is None:
        if not data.strip(b"\0"):
            raise NotAnImage(f"the file is empty: all of its {len(data):,} bytes are zero")
        nearly_empty = f"; the file is nearly empty, bytes: {len(data)}" if len(data) < _SMALL else ""
        raise NotAnImage(f"not an image of a format that is read here ({readable_formats()}){nearly_empty}")
    if kind.name == "TIFF" and (raw := camera_raw(data, name)):  # its directory may lie behind the head
        kind = Kind(raw, Reading.NOT_READ)
    if kind.reading is not Reading.READ:
        raise NotAnImage(kind.reason)
    return kind.name


def decode_blob(blob: ImageBlob, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Read and decode an image as ``decode_image`` does. Raises ImageRejected with the reason."""
    return decode_image(blob.read(limits.max_bytes), limits, blob.name)


def content_hash(image: Image.Image) -> str:
    """Hex SHA-256 of the size and the pixels of an RGB image. The file format makes no difference."""
    digest = hashlib.sha256(b"%d %d " % image.size)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _upright_rgb(loaded: Image.Image, missing: Image.Image | None) -> Image.Image:
    method = _UPRIGHT.get(_orientation(loaded))
    rgb = to_rgb(loaded)
    loaded.close()  # frees its pixels before they are copied once more
    if missing is not None:
        rgb.paste(_GREY, mask=missing)
    upright = rgb if method is None else rgb.transpose(method)
    upright.info = {}
    return upright


def _orientation(loaded: Image.Image) -> Any:
    """The EXIF orientation; 1 (as stored) if the image has none or the EXIF block cannot be read."""
    try:
        return loaded.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - the pixels are good, and a damaged EXIF block raises nearly anything
        return 1


def _silence_pillow() -> None:
    """Ignore the warnings of Pillow's modules about damaged metadata.

    This adds one lasting filter. ``warnings.catch_warnings`` around a decode would replace the filters of the whole
    process, and two threads that interleave would restore the wrong ones. Each call checks for the filter, because
    other code that restores older filters removes it.
    """
    if not any(entry[3] == _PILLOW for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
