"""Checks every image and caption of a source in one pass, in which each image is read once and decoded at most once.

A reject leaves no gap: the kept images are in source order, and row *i* of everything built from them belongs to
``Report.kept[i]``. An image whose captions are all rejected is kept, since users can find it by image. Captions that
repeat are kept: the same caption of two images is two records.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from clip_retrieval.build.captions import check_captions, with_unique_ids
from clip_retrieval.build.report import Report
from clip_retrieval.build.seen_files import ImageFacts, SeenFiles, look_at
from clip_retrieval.cores import usable_cores
from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.decode import DEFAULT_LIMITS, Limits
from clip_retrieval.parallel import map_ahead
from clip_retrieval.progress import Advance
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject, ValidImage

Derived = TypeVar("Derived")


@dataclass(frozen=True, slots=True)
class Kept(Generic[Derived]):
    """A valid image, and what was derived from its pixels."""

    image: ValidImage
    derived: Derived


def validate_each(
    items: Iterable[CaptionedImage | Reject],
    look: Callable[[ImageBlob], tuple[ImageFacts, Derived]],
    rejects: list[Reject],
    *,
    ahead: int = 0,
    advance: Advance = lambda _: None,
    workers: int | None = None,
) -> Iterator[Kept[Derived]]:
    """Yield the valid images of ``items`` in order; the others are appended to ``rejects``.

    ``look`` reads an image, and derives from its pixels what is needed, in ``workers`` threads (None: one per core);
    it raises ImageRejected with the reason. At most ``workers`` decoded images are in memory, and at most ``ahead``
    results wait (at least four per thread). ``advance`` gets 1 for each image, kept or rejected.
    """
    workers = workers or usable_cores()

    def check(item: CaptionedImage | Reject) -> tuple[Kept[Derived] | None, list[Reject]]:
        if isinstance(item, Reject):
            return None, [item]
        try:
            facts, derived = look(item.blob)
        except ImageRejected as error:
            return None, [Reject(item.blob.name, str(error))]
        captions, empty = check_captions(item)
        image = ValidImage(
            image_id=item.image_id,
            blob=item.blob,
            content_hash=facts.content_hash,
            width=facts.width,
            height=facts.height,
            captions=tuple(captions),
            split=item.split,
            metadata=item.metadata,
        )
        return Kept(image, derived), empty

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
    seen: SeenFiles | None = None,
    advance: Advance = lambda _: None,
    workers: int | None = None,
) -> Report:
    """The report of a source, without anything derived from its pixels. The last two parameters are as above.

    Files that were ``seen`` are not decoded. Raises SourceError if the source cannot be read.
    """
    rejects: list[Reject] = []

    def look(blob: ImageBlob) -> tuple[ImageFacts, None]:
        return look_at(blob, limits, seen, lambda _: False)[0], None

    each = validate_each(items, look, rejects, advance=advance, workers=workers)
    return Report(with_unique_ids([kept.image for kept in each]), rejects)
