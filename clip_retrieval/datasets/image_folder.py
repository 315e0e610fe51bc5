"""A folder of images without captions."""

from collections.abc import Iterator

from clip_retrieval.datasets.base import FolderSource
from clip_retrieval.datasets.image_files import images_below
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.records import CaptionedImage, Reject


class ImageFolder(FolderSource):
    """Every image below a folder, in order of name; the relative path is the image_id."""

    name = "images"
    has_captions = False

    def read(self) -> Iterator[CaptionedImage | Reject]:
        place = Place(self.root)
        used = set()
        for found in images_below(place):
            if isinstance(found, Reject):
                used.add(self.root / found.where)
                yield found
                continue
            blob = self.named(found[1])
            used.add(blob.path)
            yield CaptionedImage(image_id=blob.name, blob=blob)
        self.taking.unused = count_unused(place, used, "images")


def fits(place: Place, _: SourceOptions) -> Fit | None:
    """A folder with an image in it."""
    if not place.path.is_dir() or all(isinstance(found, Reject) for found in images_below(place)):
        return None
    source = ImageFolder(place.root)
    source.taking.why = "the folder has images and no captions"
    return Fit(source, source.taking.why)
