"""Checks every image and caption of a source in one pass, in which each image is read and decoded once.

A reject leaves no gap: the kept images are in source order, and row *i* of everything built from them belongs to
``Report.kept[i]``. An image whose captions are all rejected is kept, since users can find it by image. Captions that
repeat are kept: the same caption of two images is two records.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from PIL import Image

from clip_retrieval.build.captions import check_captions, with_unique_ids
from clip_retrieval.build.report import Report
from clip_retrieval.cores import usable_cores
from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import DEFAULT_LIMITS, Limits, content_hash, decode_blob
from clip_retrieval.parallel import map_ahead
from clip_retrieval.progress import Advance
from clip_retrieval.records import CaptionedImage, Reject, ValidImage

Derived = TypeVar("Derived")


@dataclass(frozen=True, slots=True)
class Kept(Generic[Derived]):
    """A valid image, and what ``derive`` made from its pixels."""

    image: ValidImage
    derived: Derived


def validate_each(
    items: Iterable[CaptionedImage | Reject],
    derive: Callable[[str, Image.Image], Derived],
    rejects: list[Reject],
    limits: Limits = DEFAULT_LIMITS,
    *,
    ahead: int = 0,
    advance: Advance = lambda _: None,
    workers: int | None = None,
) -> Iterator[Kept[Derived]]:
    """Yield the valid images of ``items`` in order; the others are appended to ``rejects``.

    Images are decoded in ``workers`` threads (None: one per core). These threads also call ``derive`` with the content
    hash and the decoded image. At most ``workers`` decoded images are in memory, and at most ``ahead`` results wait (at
    least four per thread). ``advance`` gets 1 for each image, kept or rejected.
    """
    workers = workers or usable_cores()

    def check(item: CaptionedImage | Reject) -> tuple[Kept[Derived] | None, list[Reject]]:
        if isinstance(item, Reject):
            return None, [item]
        try:
            decoded = decode_blob(item.blob, limits)
        except ImageRejected as error:
            return None, [Reject(item.blob.name, str(error))]
        captions, empty = check_captions(item)
        image = ValidImage(
            image_id=item.image_id,
            blob=item.blob,
            content_hash=content_hash(decoded),
            width=decoded.width,
            height=decoded.height,
            captions=tuple(captions),
            split=item.split,
            metadata=item.metadata,
        )
        return Kept(image, derive(image.content_hash, decoded)), empty

    checked = map_ahead(lambda item: (item, *check(item)), items, ahead=max(ahead, 4 * workers), workers=workers)
    for item, kept, rejected in checked:
        rejects += rejected
        if isinstance(item, CaptionedImage):
            advance(1)
        if kept is not None:
            yield kept


def validate(
    items: Iterable[CaptionedImage | Reject],
    limits: Limits = DEFAULT_LIMITS,
    *,
    advance: Advance = lambda _: None,
    workers: int | None = None,
) -> Report:
    """The report of a source, without anything derived from its pixels; the parameters are those of ``validate_each``.

    Raises SourceError if the source cannot be read.
    """
    rejects: list[Reject] = []
    each = validate_each(items, lambda *_: None, rejects, limits, advance=advance, workers=workers)
    return Report(with_unique_ids([kept.image for kept in each]), rejects)
