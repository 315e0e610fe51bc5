"""Small WebP images for people, made from the decoded pixels alone.

They are upright, because the pixels are, and carry no metadata. The same image and the same Pillow give the same bytes.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

from PIL import Image


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes and the quality of thumbnails.

    ``small`` and ``large`` are the longest sides in pixels; without ``large`` there are only small thumbnails.
    ``quality`` is WebP's, from 0 to 100.
    """

    small: int
    large: int | None
    quality: int

    def __str__(self) -> str:
        sides = f"{self.small} pixels" if self.large is None else f"{self.small} and {self.large} pixels"
        return f"{sides}, quality {self.quality}"


PLANS = (
    Plan(320, 1024, 80),
    Plan(320, 768, 70),
    Plan(320, 640, 60),
    Plan(320, None, 70),
    Plan(240, None, 60),
    Plan(160, None, 50),
)
"""From the finest to the coarsest."""


class Thumbnail(NamedTuple):
    """The WebP files of one image; ``large`` is None where ``small`` is all that is needed."""

    small: bytes
    large: bytes | None

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return len(self.small) + len(self.large or b"")


def shrink(image: Image.Image, plan: Plan) -> Thumbnail:
    """The thumbnail of an RGB image. No image is enlarged; one within the small size gets no large file."""
    large = None
    if plan.large is not None and max(image.size) > plan.small:
        image = within(image, plan.large)
        large = _webp(image, plan.quality)
    return Thumbnail(_webp(within(image, plan.small), plan.quality), large)


def within(image: Image.Image, longest: int) -> Image.Image:
    """The image with its longest side at most ``longest`` pixels."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _webp(image: Image.Image, quality: int) -> bytes:
    """Method 2 takes half the time of WebP's default, 4, for 2 % more bytes and 0.4 dB (docs/performance-log.md)."""
    file = BytesIO()
    image.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()
