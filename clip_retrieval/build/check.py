"""A source is checked without an encoder; and validated images become records."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from clip_retrieval.build.captions import check_captions
from clip_retrieval.build.report import Report
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.build.validate import validate
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.place import DEFAULT_OPTIONS, SourceOptions
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.images.decode import Limits, decode_blob
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionedImage, CaptionRecord, ImageRecord, Reject, Split, ValidImage
from clip_retrieval.urls import shown_place, whole_place

CALIBRATION_IMAGES = 300


class ReadSource(Source):
    """A source whose items were read already; what it was taken for is known. ``place`` is ``whole_place`` of it."""

    def __init__(self, source: Source, items: list[CaptionedImage | Reject], place: str) -> None:
        self.name, self.has_captions = source.name, source.has_captions
        self.vectors_mark, self.unlisted = source.vectors_mark, ()
        self.taking = source.taking
        self.items, self.place = items, place

    def read(self) -> Iterator[CaptionedImage | Reject]:
        return iter(self.items)


def read_source(path: Path | str, progress: Progress, options: SourceOptions = DEFAULT_OPTIONS) -> ReadSource:
    """Read a data source, without its images. Raises SourceError if it cannot be read or names no image."""
    from clip_retrieval.datasets.detect import open_source

    source = open_source(path, options)
    items: list[CaptionedImage | Reject] = []
    with progress.stage("reading the source", None) as advance:
        for item in source:
            items.append(item)
            advance(1)
    if not count_images(items):
        rejects = [item for item in items if isinstance(item, Reject)]
        raise _no_image(rejects, shown_place(str(path)), source.taking.notes)
    return ReadSource(source, items, whole_place(str(path)))


def check(path: Path | str, limits: Limits, progress: Progress) -> Report:
    """Read and validate a data source. Raises SourceError if it cannot be read or has no usable image."""
    return check_source(read_source(path, progress), shown_place(str(path)), limits, progress)


def check_source(
    source: ReadSource, place: str, limits: Limits, progress: Progress, seen: SeenFiles | None = None
) -> Report:
    """Validate a source that was read; ``place`` names it, and files that were ``seen`` are not decoded.

    Raises SourceError if it has no usable image.
    """
    with progress.stage("checking images", count_images(source.items)) as advance:
        report = validate(source.items, limits, seen=seen, advance=advance)
    require_images(report, place)
    return report


def count_images(items: Sequence[CaptionedImage | Reject]) -> int:
    """The number of images among the items of a source, before validation."""
    return sum(isinstance(item, CaptionedImage) for item in items)


def require_images(report: Report, source: str) -> None:
    """Raise SourceError if the report has no image; the message gives the first reasons."""
    if not report.kept:
        raise _no_image(report.rejects, source)


def _no_image(rejects: Sequence[Reject], source: str, notes: Sequence[str] = ()) -> SourceError:
    reasons = "; ".join([*(f"{reject.where}: {reject.reason}" for reject in rejects[:3]), *notes])
    return SourceError(f"{source} has no usable image ({reasons or 'it is empty'})")


def require_columns(items: Sequence[CaptionedImage | Reject], names: Sequence[str]) -> None:
    """Raise SourceError for a metadata column to take words from of which no image has a value."""
    known = sorted({name for item in items if isinstance(item, CaptionedImage) for name in item.metadata})
    for name in names:
        if name not in known:
            raise SourceError(
                f"there is no column {name} to take words from; the columns are {', '.join(known) or 'none'}"
            )


def require_no_reject(report: Report) -> None:
    """Raise SourceError if anything was rejected."""
    if report.rejects:
        first = report.rejects[0]
        raise SourceError(
            f"{len(report.rejects)} rejected, and --strict allows none; first {first.where}: {first.reason}"
        )


def calibration(source: Source, limits: Limits, count: int = CALIBRATION_IMAGES) -> tuple[list[Image.Image], list[str]]:
    """Images and captions to quantise an encoder with, or to try it: up to ``count`` of each, spread over the source.

    Images that are rejected and captions that are empty are skipped.
    """
    items = [item for item in source if isinstance(item, CaptionedImage)]
    images, texts = [], []
    for item in spread(items, count):
        try:
            images.append(decode_blob(item.blob, limits))
        except ImageRejected:
            continue
        texts += [caption.text for caption in check_captions(item)[0][:1]]
    return images, texts


def spread(items: Sequence[CaptionedImage], count: int) -> list[CaptionedImage]:
    """At most ``count`` of the items, at equal distances."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def records_of(kept: Sequence[ValidImage], splits: Sequence[Split]) -> tuple[list[ImageRecord], list[CaptionRecord]]:
    """The records of validated images and their splits: row *i* is image *i*; captions are in the order of images."""
    images: list[ImageRecord] = []
    captions: list[CaptionRecord] = []
    for row, (image, split) in enumerate(zip(kept, splits, strict=True)):
        images.append(
            ImageRecord(
                row=row,
                image_id=image.image_id,
                image_path=image.blob.name,
                content_hash=image.content_hash,
                width=image.width,
                height=image.height,
                split=split,
                metadata=image.metadata,
            )
        )
        for caption in image.captions:
            assert caption.caption_id is not None, "validation gives every caption an id"
            captions.append(CaptionRecord(len(captions), caption.caption_id, row, caption.text, caption.language))
    return images, captions
