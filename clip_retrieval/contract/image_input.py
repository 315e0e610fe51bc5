"""The images that a user of the client may pass, and the bytes that are sent for each.

Needs the standard library only: a caller who passes a PIL image has already loaded Pillow.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image

ImageInput: TypeAlias = "str | Path | bytes | BinaryIO | Image"
"""A path, the bytes of an image file, an open binary file, or a PIL image."""

_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


def read_image_input(given: ImageInput) -> tuple[str, bytes]:
    """File name and bytes of an image. A PIL image becomes a PNG of the same pixels.

    Raises OSError if a path or an open file cannot be read.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        return path.name, path.read_bytes()
    if isinstance(given, bytes):
        return "image", given
    if hasattr(given, "save") and hasattr(given, "convert"):
        image = given if given.mode in _PNG_MODES else given.convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return "image.png", buffer.getvalue()
    name = getattr(given, "name", "image")
    return Path(str(name)).name, given.read()
