"""A folder of images without captions."""

from collections.abc import Iterator
from typing import ClassVar

from clip_retrieval.datasets.base import FolderSource, find_images
from clip_retrieval.records import CaptionedImage, Reject


class ImageFolder(FolderSource):
    """Every image below a folder, in order of name; the relative path is the image_id."""

    name: ClassVar[str] = "images"
    has_captions: ClassVar[bool] = False

    def read(self) -> Iterator[CaptionedImage | Reject]:
        for found in find_images(self.root):
            if isinstance(found, Reject):
                yield found
            else:
                blob = self.named(found)
                yield CaptionedImage(image_id=blob.name, blob=blob)
