"""Names for images that a table names outside of its place: short, and never one for two images."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.records import CaptionedImage, Reject


def told_apart(items: Iterable[CaptionedImage | Reject]) -> Iterator[CaptionedImage | Reject]:
    """The items of a source. Images outside of its place that have one name get the shortest ends that tell them apart.

    An image that has an image_id of its own keeps its name.
    """
    items = list(items)
    outside = {id(item): path for item in items if (path := _path_outside(item)) is not None}
    taken = {item.image_id for item in items if isinstance(item, CaptionedImage) and id(item) not in outside}
    ends = _ends({*outside.values()}, taken)
    for item in items:
        if isinstance(item, CaptionedImage) and isinstance(item.blob, FileBlob) and id(item) in outside:
            name = ends[outside[id(item)]]
            yield replace(item, image_id=name, blob=item.blob.named(name))
        else:
            yield item


def _path_outside(item: CaptionedImage | Reject) -> str | None:
    """The path in Unicode's form NFC of an image that lies outside of its place and has its name as its image_id."""
    if not isinstance(item, CaptionedImage) or not isinstance(item.blob, FileBlob):
        return None
    is_meant = item.blob.is_outside and item.image_id == item.blob.name
    return unicodedata.normalize("NFC", item.blob.path.as_posix()) if is_meant else None


def _ends(paths: Collection[str], taken: Collection[str]) -> Mapping[str, str]:
    """The shortest end of each path that is neither that of another one nor ``taken``."""
    sizes = dict.fromkeys(paths, 1)
    while True:
        ends = {path: "/".join(path.split("/")[1:][-size:]) for path, size in sizes.items()}
        counts = Counter(ends.values())
        longer = [path for path, end in ends.items() if (counts[end] > 1 or end in taken) and f"/{end}" != path]
        if not longer:
            return ends
        sizes.update({path: sizes[path] + 1 for path in longer})
