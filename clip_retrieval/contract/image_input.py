"""The images that a user of the client may pass, and the bytes that are sent for each.

Needs the standard library only. Pillow is imported for a PIL image alone: who passes one has already loaded it.
"""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

if TYPE_CHECKING:
    from PIL.Image import Image

ImageInput: TypeAlias = "str | Path | bytes | BinaryIO | Image"
"""A path, the bytes of an image file, an open binary file, or a PIL image."""

MAX_LOSSLESS_BYTES = 7 * 2**20
"""A larger PNG is not sent: in base64 it would be over the service's default limit of 10 MiB."""
SHORTEST_SIDE = 1024
"""To so many pixels a larger image is reduced: at least twice the input of the models of open_clip."""

_LONGEST_SIDE = 65_500
"""Of a JPEG, as Pillow writes it."""
_WIDE_MODES = frozenset({"I", "F"})
_NEAR_MODES = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA", "I;16B": "I;16", "I;16L": "I;16", "I;16N": "I;16"}
"""Modes that a PNG can have, for modes that hold the same; others become RGB."""
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})


def read_image_input(given: ImageInput) -> tuple[str, bytes]:
    """File name and bytes of an image.

    A PIL image is sent upright, with the colours that the service would read from its file: as a PNG of the same pixels
    or, where that would be over ``MAX_LOSSLESS_BYTES``, reduced to ``SHORTEST_SIDE`` as a JPEG. 32-bit values become a
    TIFF. Raises OSError if a path or an open file cannot be read.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        return path.name, path.read_bytes()
    if isinstance(given, bytes):
        return "image", given
    if hasattr(given, "read"):
        return Path(str(getattr(given, "name", "image"))).name, given.read()
    return _encoded(_upright(given))


def _upright(image: "Image") -> "Image":
    """A copy with the orientation of EXIF applied, and without metadata but for a transparent colour."""
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - the service, too, ignores an EXIF block that cannot be read
        upright = image.copy()
    upright.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return upright


def _encoded(image: "Image") -> tuple[str, bytes]:
    wide = image.mode in _WIDE_MODES
    if not wide and image.mode not in _PNG_MODES:
        image = image.convert(_NEAR_MODES.get(image.mode, "RGB"))
    channels = 2 if image.mode == "I;16" else len(image.getbands())
    # For a photograph that is far too large, an attempt would take seconds.
    if wide or image.width * image.height * channels <= 2 * MAX_LOSSLESS_BYTES:
        name, data = ("image.tiff", _saved(image, "TIFF")) if wide else ("image.png", _saved(image, "PNG"))
        if len(data) <= MAX_LOSSLESS_BYTES:
            return name, data
    return "image.jpg", _reduced(_rgb(image))


def _reduced(image: "Image") -> bytes:
    """An RGB image as a JPEG within ``MAX_LOSSLESS_BYTES``."""
    from PIL.Image import Resampling

    scale = min(1.0, SHORTEST_SIDE / min(image.size), _LONGEST_SIDE / max(image.size))
    while True:
        width, height = (max(1, round(side * scale)) for side in image.size)
        smaller = image.resize((width, height), Resampling.LANCZOS, reducing_gap=3.0)
        data = _saved(smaller, "JPEG", quality=95, subsampling=0)
        if len(data) <= MAX_LOSSLESS_BYTES:
            return data
        scale *= math.sqrt(MAX_LOSSLESS_BYTES / len(data)) / 1.1


def _rgb(image: "Image") -> "Image":
    """As the service reads it: transparency on white, 16 bits by their high byte, 32 bits over their range."""
    from PIL.Image import new

    if image.mode == "I;16":
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.mode in _WIDE_MODES:
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    canvas = new("RGB", layer.size, "white")
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _saved(image: "Image", format_name: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()
