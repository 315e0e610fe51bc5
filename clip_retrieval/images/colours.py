"""The colours of a decoded image as 8-bit RGB.

Memory is bounded: beside the image and its result there is never a third copy in floats.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRIP_PIXELS = 1 << 20


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image of the same size.

    Transparency is composited on white. 16 bits a channel become 8 by dropping the low byte. 32-bit integers and
    floats have no defined range: they are stretched from their least to their greatest value.
    """
    if image.mode.startswith("I;16"):
        return _grey(image, lambda values: values >> 8)
    if image.mode in ("I", "F"):
        return _stretched(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", layer.size, "white")
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _stretched(image: Image.Image) -> Image.Image:
    low, high = np.inf, -np.inf
    for _, values in _strips(image):
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:  # no value is finite
        return Image.new("RGB", image.size)
    scale = 255 / (high - low) if high > low else 0.0

    def levels(values: NDArray[Any]) -> NDArray[Any]:
        wide = values.astype(np.float64)
        return (np.clip(np.where(np.isfinite(wide), wide, low), low, high) - low) * scale

    return _grey(image, levels)


def _grey(image: Image.Image, levels: Callable[[NDArray[Any]], NDArray[Any]]) -> Image.Image:
    """``levels`` gives grey levels from 0 to 255 for values of ``image``."""
    grey = Image.new("L", image.size)
    for top, values in _strips(image):
        grey.paste(Image.fromarray(levels(values).astype(np.uint8)), (0, top))
    return grey.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """The first row and the values of every strip of about a million pixels."""
    step = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + step, image.height))))
