"""A folder of images without captions."""

import unicodedata
from collections.abc import Iterator

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.image_files import images_below
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.records import CaptionedImage, Reject


class ImageFolder(Source):
    """Every image of a place, in order of name; the relative path is the image_id."""

    name = "images"
    has_captions = False

    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self) -> Iterator[CaptionedImage | Reject]:
        used = set()
        for found in images_below(self._place):
            if isinstance(found, Reject):
                used.add(found.where)
                yield found
                continue
            used.add(found.name)
            name = unicodedata.normalize("NFC", found.name)
            yield CaptionedImage(image_id=name, blob=found.named(name))
        self.taking.unused = count_unused(self._place, used, "images")


def fits(place: Place, _: SourceOptions) -> Fit | None:
    """A folder with an image in it."""
    if place.only is not None or all(isinstance(found, Reject) for found in images_below(place)):
        return None
    source = ImageFolder(place)
    source.taking.why = "the folder has images and no captions"
    return Fit(source, source.taking.why)
