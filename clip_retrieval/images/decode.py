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
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from clip_retrieval.errors import ImageRejected, ImageTooLarge, NotAnImage
from clip_retrieval.records import ImageBlob


@dataclass(frozen=True)
class Limits:
    """The largest image that is accepted; ``max_pixels`` is the width times the height of one frame.

    Pillow rejects some formats above twice its own ``Image.MAX_IMAGE_PIXELS``, whatever ``max_pixels`` says.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = Limits()

# The signature selects one of Pillow's classes. Image.open would warn about sizes before they are checked here, and
# would read a JPEG that contains a second image as another format.
_READERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
}
_SIGNATURE = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<BMP>BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)"
    rb"|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<WebP>RIFF.{4}WEBPVP8[ LX])"
    rb"|(?P<AVIF>.{4}ftyp(?:avi[fs]|m[is]f1.{0,48}?avi[fs]))",
    re.DOTALL,
)
_FORMATS = frozenset(_READERS) - (frozenset() if features.check("avif") else {"AVIF"})

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


def decode_image(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Decode an image to upright RGB of its full size. Of several frames only the first is read.

    Transparency is composited on white. 16 bits a channel become 8 by dropping the low byte. 32-bit integers and
    floats have no defined range: they are stretched from their least to their greatest value. The EXIF orientation is
    applied, and the result carries no metadata of the file.

    Raises ImageTooLarge over the limit for bytes; NotAnImage if the format is none of JPEG, PNG, WebP, GIF, BMP, TIFF
    and AVIF; ImageRejected if the image has too many pixels (the header tells, before any pixel is decoded), or is
    truncated or damaged.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the file is over the limit of {limits.max_bytes:,} bytes")
    match = _SIGNATURE.match(data)
    if match is None or match.lastgroup not in _FORMATS:
        raise NotAnImage(f"not an image of a format that is read here ({', '.join(sorted(_FORMATS))})")
    _silence_pillow()
    try:
        with _READERS[match.lastgroup](BytesIO(data)) as opened:
            _check_size(opened, limits)
            opened.load()
            return _upright_rgb(opened)
    except ImageRejected:
        raise
    except Image.DecompressionBombError as error:
        raise _bomb("its size", limits) from error
    except Exception as error:  # damaged files raise nearly anything inside Pillow
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        reason = reason.replace("not identified by this driver", "its header gives no size or colours")
        raise ImageRejected(f"does not decode as {match.lastgroup}: {reason}") from error


def decode_blob(blob: ImageBlob, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Read and decode an image as ``decode_image`` does. Raises ImageRejected with the reason."""
    return decode_image(blob.read(limits.max_bytes), limits)


def content_hash(image: Image.Image) -> str:
    """Hex SHA-256 of the size and the pixels of an RGB image. The file format makes no difference."""
    digest = hashlib.sha256(b"%d %d " % image.size)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _check_size(opened: ImageFile.ImageFile, limits: Limits) -> None:
    width, height = opened.size
    if width * height > limits.max_pixels:
        raise _bomb(f"{width} x {height}", limits)


def _bomb(size: str, limits: Limits) -> ImageRejected:
    return ImageRejected(f"{size} is over the limit of {limits.max_pixels:,} pixels (decompression bomb)")


def _upright_rgb(loaded: Image.Image) -> Image.Image:
    method = _UPRIGHT.get(_orientation(loaded))
    rgb = _rgb(loaded)
    upright = rgb if method is None else rgb.transpose(method)
    upright.info = {}
    return upright


def _orientation(loaded: Image.Image) -> Any:
    """The EXIF orientation; 1 (as stored) if the image has none or the EXIF block cannot be read."""
    try:
        return loaded.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - the pixels are good, and a damaged EXIF block raises nearly anything
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image) >> 8)
    if image.mode in ("I", "F"):
        return _grey(_stretched(np.asarray(image, np.float64)))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    canvas = Image.new("RGB", layer.size, "white")
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _grey(values: np.ndarray[Any, np.dtype[Any]]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _stretched(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = values[finite].min(), values[finite].max()
    values = np.clip(np.where(finite, values, low), low, high) - low
    return values * (255 / (high - low)) if high > low else values


def _silence_pillow() -> None:
    """Ignore the warnings of Pillow's modules about damaged metadata.

    This adds one lasting filter. ``warnings.catch_warnings`` around a decode would replace the filters of the whole
    process, and two threads that interleave would restore the wrong ones. Each call checks for the filter, because
    other code that restores older filters removes it.
    """
    if not any(entry[3] == _PILLOW for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)
