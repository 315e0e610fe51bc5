"""The collection that most tests search: squares in the colours of the fake encoder, each in three shades.

A shade moves every channel of a corner of the RGB cube towards middle grey, so the bright square of a colour is the
nearest to its word, then the soft, then the dull one. Rows stand colour by colour, shade by shade, and every image
has two captions, of which the first repeats across the shades of a colour:

    row 12  red-bright.png   "a red square", "a bright red square"
    row 13  red-soft.png     "a red square", "a soft red square"
    row 14  red-dull.png     "a red square", "a dull red square"
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from clip_retrieval.datasets.base import Source
from clip_retrieval.encoders.fake import COLOURS
from clip_retrieval.errors import ImageRejected
from clip_retrieval.records import CaptionedImage, Reject

SHADES = {"bright": 1.0, "soft": 0.8, "dull": 0.6}
NAMES = tuple(f"{colour}-{shade}.png" for colour in COLOURS for shade in SHADES)


def square(colour: str, shade: str = "bright", size: int = 12) -> Image.Image:
    """An RGB square of one colour word."""
    corner = COLOURS.index(colour)
    channels = (255 if corner & bit else 0 for bit in (4, 2, 1))
    red, green, blue = (round(127.5 + (channel - 127.5) * SHADES[shade]) for channel in channels)
    return Image.new("RGB", (size, size), (red, green, blue))


def image_of(name: str, size: int = 12) -> Image.Image:
    """The image that the collection has under this name, such as ``red-soft.png``."""
    colour, shade = name.removesuffix(".png").split("-")
    return square(colour, shade, size)


def png(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file, which keeps every pixel."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class MemoryBlob:
    """An image that is only in memory; ``data`` None is one that cannot be read."""

    name: str
    data: bytes | None

    def read(self, limit: int) -> bytes:
        if self.data is None:
            raise ImageRejected("it is gone")
        return self.data[: limit + 1]


class MemorySource(Source):
    """A source whose images are only in memory."""

    name = "memory"

    def __init__(self, items: Sequence[CaptionedImage | Reject]) -> None:
        self.items = items

    def read(self) -> Iterator[CaptionedImage | Reject]:
        yield from self.items


def captions_of(name: str) -> tuple[str, str]:
    """The two captions of an image of the collection."""
    colour, shade = name.removesuffix(".png").split("-")
    return f"a {colour} square", f"a {shade} {colour} square"


def write_images(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Write squares into ``folder`` as PNG files; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(png(image_of(name)))
    return folder


def write_collection(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Write squares and their ``captions.csv``, with the shade in a column of its own; returns ``folder``."""
    write_images(folder, names)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "shade"])
        for name in names:
            shade = name.removesuffix(".png").split("-")[1]
            table.writerows([name, caption, shade] for caption in captions_of(name))
    return folder


def write_tiles(folder: Path, colours: Sequence[str] = COLOURS, splits: Sequence[str] = ("",), size: int = 32) -> Path:
    """Two colours side by side in each of the shades, with their ``captions.csv``; returns ``folder``.

    Each shade takes its turn at ``splits``. A small model can learn these images in seconds.
    """
    folder.mkdir(parents=True)
    rows = []
    for left in colours:
        for right in COLOURS:
            for number, shade in enumerate(SHADES):
                tile = square(left, shade, size)
                tile.paste(square(right, shade, size), (size // 2, 0))
                name = f"{left}-{right}-{shade}.png"
                (folder / name).write_bytes(png(tile))
                rows.append((name, f"{shade}, {left} on the left, {right} on the right", splits[number % len(splits)]))
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "split"), *rows])
    return folder
