"""Pictures as a user of the client has them, as the bytes that are sent. Needs no package beyond the standard library.

Only a PIL image needs Pillow, and whoever has one has Pillow loaded.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | Path | bytes | BinaryIO | Image"
"""A path, the bytes of a picture file, an open binary file, or a PIL image."""

_PNG_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


def read_picture(picture: Picture) -> tuple[str, bytes]:
    """File name and bytes of a picture; a PIL image becomes a PNG of the same pixels. Raises OSError for a path."""
    if isinstance(picture, str | Path):
        path = Path(picture)
        return path.name, path.read_bytes()
    if isinstance(picture, bytes):
        return "picture", picture
    if hasattr(picture, "save") and hasattr(picture, "convert"):
        image = picture if picture.mode in _PNG_MODES else picture.convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return "picture.png", buffer.getvalue()
    name = getattr(picture, "name", "picture")
    return Path(str(name)).name, picture.read()
