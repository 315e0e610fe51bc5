"""A folder of pictures and nothing else: they can be searched by picture, not by text."""

from collections.abc import Iterator
from typing import ClassVar

from clip_retrieval.datasets.base import Source, find_pictures
from clip_retrieval.records import CaptionedImage, Reject


class PictureFolder(Source):
    """Every picture below a folder, in order of name; the relative path is the image_id."""

    name: ClassVar[str] = "pictures"
    has_captions: ClassVar[bool] = False

    def read(self) -> Iterator[CaptionedImage | Reject]:
        for found in find_pictures(self.root):
            if isinstance(found, Reject):
                yield found
            else:
                name = found.relative_to(self.root).as_posix()
                yield CaptionedImage(image_id=name, path=found, image_path=name)
