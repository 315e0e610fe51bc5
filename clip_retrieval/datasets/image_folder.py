"""A folder of images and nothing else: they can be searched by image, not by text."""

from collections.abc import Iterator
from typing import ClassVar

from clip_retrieval.datasets.base import Source, find_images
from clip_retrieval.records import CaptionedImage, Reject


class ImageFolder(Source):
    """Every image below a folder, in order of name; the relative path is the image_id."""

    name: ClassVar[str] = "images"
    has_captions: ClassVar[bool] = False

    def read(self) -> Iterator[CaptionedImage | Reject]:
        for found in find_images(self.root):
            if isinstance(found, Reject):
                yield found
            else:
                name = found.relative_to(self.root).as_posix()
                yield CaptionedImage(image_id=name, path=found, image_path=name)
