"""From an image's bytes to upright RGB pixels, or the reason why not.

Every image enters here: files of a collection and uploads of the service. It decodes wholly or is refused.
``decode_image`` raises nothing but ImageRejected, whatever the bytes, and may be called from any thread.

Colours are taken as stored: ICC profiles are not applied, as in CLIP's own preprocessing. JPEGs are decoded
at full size: Pillow's draft mode is several times faster on large photographs but changes the pixels.
"""

import base64
import hashlib
import re
import struct
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

from clip_retrieval.errors import ImageRejected, ImageTooLarge, NotAnImage, SourceError
from clip_retrieval.records import ValidImage


@dataclass(frozen=True)
class Limits:
    """The largest image that is accepted; ``max_pixels`` counts width times height of one frame.

    Over twice Pillow's own ``Image.MAX_IMAGE_PIXELS`` some formats are refused whatever ``max_pixels`` says.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_frames: int = 500


DEFAULT_LIMITS = Limits()

# Pillow's classes are opened by signature and not through Image.open, which would warn about sizes before
# they can be checked here, and would take JPEGs with a second image inside for another format.
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
    """Decode an image to upright RGB of its full size; of several frames, the first.

    Transparency is composited on white. 16 bits a channel become 8 by dropping the low byte; 32-bit
    integers and floats, which have no defined range, are stretched from their least to their greatest
    value. The EXIF orientation is applied, and nothing of the file's metadata is left on the result.

    Raises ImageTooLarge over the limit for bytes, NotAnImage for bytes of no format in the allow-list (JPEG,
    PNG, WebP, GIF, BMP, TIFF, AVIF), ImageRejected for all else: over the limits for pixels or frames (both
    judged by the header, before any pixel is decoded), truncated or damaged.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the file is over the limit of {limits.max_bytes:,} bytes")
    match = _SIGNATURE.match(data)
    if match is None or match.lastgroup not in _FORMATS:
        raise NotAnImage(f"not an image of a format that is read here ({', '.join(sorted(_FORMATS))})")
    _silence_pillow()
    try:
        with _READERS[match.lastgroup](BytesIO(data)) as opened:
            _check_header(opened, data, limits)
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


def content_hash(image: Image.Image) -> str:
    """Hex SHA-256 of the size and the pixels of an RGB image, whatever file they came from."""
    digest = hashlib.sha256(b"%d %d " % image.size)
    digest.update(image.tobytes())
    return digest.hexdigest()


def _check_header(opened: ImageFile.ImageFile, data: bytes, limits: Limits) -> None:
    width, height = opened.size
    if width * height > limits.max_pixels:
        raise _bomb(f"{width} x {height}", limits)
    # Pillow counts the frames of these two by reading every one, which a crafted file can draw out for long.
    if isinstance(opened, GifImageFile):
        frames = _gif_frames(data, limits.max_frames)
    elif isinstance(opened, TiffImageFile):
        frames = _tiff_frames(data, limits.max_frames)
    else:
        frames = getattr(opened, "n_frames", 1)
    if frames > limits.max_frames:
        raise ImageRejected(f"more than the limit of {limits.max_frames:,} frames")


def _bomb(size: str, limits: Limits) -> ImageRejected:
    return ImageRejected(f"{size} is over the limit of {limits.max_pixels:,} pixels (decompression bomb)")


def _gif_frames(data: bytes, most: int) -> int:
    """Frames of a GIF, counted up to ``most`` + 1; a file that ends early has the frames seen so far."""
    frames, at = 0, 13 + _colour_table(data[10])
    while frames <= most and at < len(data) and data[at] in b"!,":
        if data[at] == ord(","):
            frames += 1
            if at + 9 >= len(data):
                break
            at += 11 + _colour_table(data[at + 9])
        else:
            at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return frames


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _tiff_frames(data: bytes, most: int) -> int:
    """Pages of a TIFF or BigTIFF, counted up to ``most`` + 1 along its chain of directories."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    offset, count, entry = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}I", f"{order}H", 12)
    frames, seen = 0, {0}
    at = 8 if big else 4
    try:
        while frames <= most and (page := struct.unpack_from(offset, data, at)[0]) not in seen:
            seen.add(page)
            frames += 1
            (entries,) = struct.unpack_from(count, data, page)
            at = page + struct.calcsize(count) + entry * entries
    except (struct.error, OverflowError):
        pass  # the chain leaves the file: it ends there
    return frames


def _upright_rgb(loaded: Image.Image) -> Image.Image:
    method = _UPRIGHT.get(_orientation(loaded))
    rgb = _rgb(loaded)
    upright = rgb if method is None else rgb.transpose(method)
    upright.info = {}
    return upright


def _orientation(loaded: Image.Image) -> Any:
    """The EXIF orientation; 1, as stored, if there is none or the EXIF block cannot be read."""
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
    """Have the warnings that Pillow's modules give about damaged metadata ignored.

    One lasting filter for PIL's own modules: ``warnings.catch_warnings`` around a decode would swap the
    filters of the whole process, and two threads that interleave leave the wrong ones behind. It is looked
    for at every call because whoever restores older filters drops it.
    """
    if not any(entry[3] == _PILLOW for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def decode_again(image: ValidImage, limits: Limits) -> Image.Image:
    """The pixels of a validated image. Raises SourceError when its file is no longer that image."""
    try:
        decoded = decode_image(image.path.read_bytes(), limits)
        changed = content_hash(decoded) != image.content_hash
    except (OSError, ImageRejected) as error:
        raise SourceError(f"{image.image_path} changed while the build was running ({error})") from error
    if changed:
        raise SourceError(f"{image.image_path} changed while the build was running; run it again")
    return decoded


def decode_part(encoded: str, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The RGB image in base64. Raises ImageRejected."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError as error:  # binascii.Error, and what is not ASCII
        raise ImageRejected("the image is not base64") from error
    return decode_image(data, limits)
