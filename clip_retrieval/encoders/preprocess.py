"""Images to pixels without torch, equal to open_clip's preprocessing with torchvision to the last bit.

Reproduces ``open_clip.image_transform(is_train=False)`` of open_clip 3.3, which is for PIL images:

    shortest   torchvision Resize(shortest side) → CenterCrop, or open_clip's ResizeKeepRatio for oblong targets
    longest    open_clip's ResizeKeepRatio(longest=1) → CenterCropOrPad(fill)
    squash     torchvision Resize((height, width))
    then       convert("RGB") → ToTensor (÷ 255) → Normalize(mean, std)

Resizing is done in the image's own mode, before the conversion, as in open_clip. There are two exceptions. A side that
would round to zero pixels, with which open_clip fails, keeps one pixel. If a very narrow image would be enlarged to
more than 16 megapixels before its centre is cut out, only the centre is enlarged (equal within one grey level).
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict

from clip_retrieval.encoders.base import Pixels

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_RESIZED_PIXELS = 1 << 24


class Preprocess(BaseModel):
    """The preprocessing of one model. The fields are those of ``preprocess_cfg`` in open_clip_config.json."""

    model_config = ConfigDict(frozen=True)

    size: int | tuple[int, int] = 224
    """Side of the square, or (height, width), in pixels."""
    mode: Literal["RGB"] = "RGB"
    mean: float | tuple[float, float, float] = OPENAI_MEAN
    std: float | tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    """``random`` matters in training only; elsewhere it means bicubic."""
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0
    """Grey level (0 to 255) of the border that ``longest`` adds."""

    @property
    def height_width(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(self, image: Image.Image) -> Pixels:
        """The pixels of one image of any mode: float32, shape (3, height, width)."""
        rgb = np.asarray(self._fit(image).convert("RGB"))
        pixels = np.array(rgb.transpose(2, 0, 1), dtype=np.float32, order="C")
        # Three steps in float32, as in torch: one combined factor would round differently.
        pixels /= 255
        pixels -= _by_channel(self.mean)
        pixels /= _by_channel(self.std)
        return pixels

    def _fit(self, image: Image.Image) -> Image.Image:
        height, width = self.height_width
        bilinear = self.interpolation == "bilinear"
        resample = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        if self.resize_mode == "squash":
            return _resize(image, (height, width), resample)
        if self.resize_mode == "longest":
            ratio = max(image.height / height, image.width / width)
            return _centre(_resize(image, _divided(image, ratio), resample), (height, width), self.fill_color)
        if height != width:  # open_clip passes no interpolation here, so its default holds
            ratio = min(image.height / height, image.width / width)
            return _cover(image, _divided(image, ratio), (height, width), Image.Resampling.BICUBIC)
        if image.height < image.width:
            scaled = height, int(height * image.width / image.height)
        else:
            scaled = int(width * image.height / image.width), width
        return _cover(image, scaled, (height, width), resample)


def _by_channel(value: float | tuple[float, float, float]) -> NDArray[np.float32]:
    return np.broadcast_to(np.asarray(value, dtype=np.float32), 3)[:, None, None]


def _divided(image: Image.Image, ratio: float) -> tuple[int, int]:
    return max(1, round(image.height / ratio)), max(1, round(image.width / ratio))


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    height, width = size
    return image if image.size == (width, height) else image.resize((width, height), resample)


def _cover(
    image: Image.Image, scaled: tuple[int, int], size: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    """Resize to ``scaled`` (height, width) and cut out the centre of ``size`` (height, width)."""
    if scaled[0] * scaled[1] <= MAX_RESIZED_PIXELS:
        return _centre(_resize(image, scaled, resample), size, 0)
    # An image of 1 × 5,000 pixels would need gigabytes when enlarged: enlarge only the part that the crop keeps.
    spans = []
    for length, long, kept in zip((image.height, image.width), scaled, size, strict=True):
        start = round((long - kept) / 2) * length / long
        end = start + kept * length / long
        first, last = max(0, math.floor(start) - 4), min(length, math.ceil(end) + 4)
        spans.append((first, last, start - first, end - first))
    (top, below, y0, y1), (left, right, x0, x1) = spans
    part = image.crop((left, top, right, below))
    return part.resize(size[::-1], resample, box=(x0, y0, x1, y1))


def _centre(image: Image.Image, size: tuple[int, int], fill: int) -> Image.Image:
    """Pad an image that is smaller than ``size`` (odd pixels go right and below), then cut out the centre."""
    height, width = size
    missing = max(0, width - image.width), max(0, height - image.height)
    if any(missing):
        image = _pad(image, missing, fill)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _pad(image: Image.Image, missing: tuple[int, int], fill: int) -> Image.Image:
    (left, top), (right, below) = (m // 2 for m in missing), ((m + 1) // 2 for m in missing)
    bands = len(image.getbands())
    padded = ImageOps.expand(image, (left, top, right, below), fill if bands == 1 else (fill,) * bands)
    if image.mode == "P" and (palette := image.getpalette()):
        padded.putpalette(palette)  # the indices, also those of the border, keep their colours
    return padded
