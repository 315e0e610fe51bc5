"""Which reader reads a source: the first in a list that says that it fits, and why."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from clip_retrieval.datasets import (
    flickr,
    image_folder,
    img2dataset,
    parquet,
    remote,
    sidecar,
    table_source,
    vectors,
    webdataset,
)
from clip_retrieval.datasets.base import IMAGE_SUFFIXES, Source
from clip_retrieval.datasets.image_folder import ImageFolder
from clip_retrieval.datasets.other_kinds import other_kind
from clip_retrieval.datasets.place import DEFAULT_OPTIONS, Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.sidecar import SidecarFolder
from clip_retrieval.datasets.table_files import HIDDEN_TABLE, may_be_a_table, may_be_hidden_table
from clip_retrieval.datasets.tar_place import TarPlace, tar_names
from clip_retrieval.errors import SourceError
from clip_retrieval.urls import is_url

READERS: Sequence[Callable[[Place, SourceOptions], Fit | Miss | None]] = (
    vectors.fits,
    img2dataset.fits,
    flickr.fits,
    table_source.fits,
    webdataset.fits,
    parquet.fits,
    sidecar.fits,
    sidecar.fits_fields,
    image_folder.fits,
)
"""From the most particular layout to the most general one; shards before the images beside them, if they hold more."""
_IN_TARS = (flickr.fits, table_source.fits, sidecar.fits)
"""What may say the captions of images in tars that have none beside them."""
_IMAGES_ALONE = (vectors.fits, img2dataset.fits, webdataset.fits, parquet.fits, image_folder.fits)
"""Without captions, images in shards are images still."""
LAYOUTS = (
    "a table (captions.csv, .tsv, .jsonl or .json, COCO, Karpathy, Hugging Face's metadata), Flickr8k.token.txt,"
    " Parquet files, tars, text or JSON files beside images, or a folder of images"
)
CALLED_CAPTIONS = "it is called captions and is of no kind that is read; save it as CSV"
ARCHIVES = (".zip", ".7z", ".rar")
NOT_READ = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "a spreadsheet; save it as CSV"),
    **{
        f"{table}{packed}": "compressed; unpack it first"
        for table in (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
        for packed in (".gz", ".bz2", ".xz", ".zst", ".zip")
    },
}
"""Endings of files that look like captions and are not read, each with what to do."""


def open_source(path: Path | str, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """The reader for a file, a folder or a URL of a store: the first of ``READERS`` that fits.

    A folder with files that look like captions and are not understood is an error, unless ``options.no_captions``.
    Raises SourceError with what was seen, and what would be read.
    """
    if is_url(str(path)):
        return remote.open_remote(str(path), options, _detect)
    try:
        place = Place.at(Path(path))
        if not place.path.exists():
            raise SourceError(f"{path} does not exist; give a folder of images, or a table of images and captions")
        if not (place.path.is_dir() or place.path.is_file()):
            raise SourceError(f"{path} is neither a file nor a folder; write what it gives into a file, and give that")
        return _detect(place, options)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _detect(place: Place, options: SourceOptions) -> Source:
    misses: list[Miss] = []
    for fits in _IMAGES_ALONE if options.no_captions and place.only is None else READERS:
        found = fits(place, options)
        if isinstance(found, Miss):
            misses.append(found)
        elif found is not None:
            source = found.source
            source.taking.why, source.unlisted = found.why + _left_out(source, place), tuple(place.rejects)
            if (options.image_column or options.caption_columns) and not source.takes_columns:
                if misses:
                    raise SourceError(_not_understood(place, misses))
                raise SourceError(
                    f"{place.shown} is taken as {source.name}, which has no columns to choose from: leave"
                    " --image-column and --caption-column out"
                )
            if options.no_captions:
                source.images_alone, source.has_captions = True, False
            if source.has_captions or options.no_captions:
                return source
            return _without_captions(source, place, misses, options)
    if misses:
        raise SourceError(_not_understood(place, misses))
    if place.only is not None:
        kind = _not_read(place.only) or other_kind(place.files[place.only])
        if kind is not None:
            raise SourceError(f"{place.shown} cannot be read as a collection: it is {kind}. What is read: {LAYOUTS}")
        raise SourceError(
            f"{place.shown} is not a table or an archive that can be read ({LAYOUTS}); unpack another archive first"
        )
    raise SourceError(
        f"{place.shown} is not a collection: it has no table such as captions.csv, captions.jsonl or"
        f" Flickr8k.token.txt, and no image ({', '.join(sorted(IMAGE_SUFFIXES))}){_left(place)}"
    )


def _left(place: Place) -> str:
    """What of a place without an image could not be looked into."""
    reasons = [f"{reject.where}: {reject.reason}" for reject in place.rejects]
    reasons += [f"{name}: unpack it first" for name in place.files if name.lower().endswith(ARCHIVES)]
    return "".join(f"; {reason}" for reason in reasons[:3])


def _without_captions(source: Source, place: Place, misses: list[Miss], options: SourceOptions) -> Source:
    """The source, unless files beside its images or in its tars look like captions."""
    if isinstance(source, webdataset.WebDataset):
        source = _in_tars(source, TarPlace.of(place, source.names), options)
        if source.has_captions:
            return source
    if (below := place.unpacked()) is not None:
        with suppress(SourceError):
            if (inside := _detect(below, options)).has_captions:
                return inside
    misses += _like_captions(place)
    # The readers of images in files have looked for captions beside these.
    looked = isinstance(source, ImageFolder | SidecarFolder)
    if place.only is None and not looked and (texts := sidecar.fits(place, options)) is not None:
        misses.append(Miss(texts.why, f"but {source.taking.why}; write these captions there"))
    if misses and place.only is None:
        raise SourceError(_not_understood(place, misses))
    return source


def _in_tars(source: Source, opened: TarPlace, options: SourceOptions) -> Source:
    """The reader for what lies in tars and has captions, as if they were folders; ``source`` if nothing has any.

    Raises SourceError for what looks like captions there and is not understood.
    """
    names_columns = bool(options.image_column or options.caption_columns)
    misses: list[Miss] = []
    view: TarPlace | None = opened
    while view is not None:
        for fits in _IN_TARS:
            found = fits(view, options)
            if isinstance(found, Miss):
                misses.append(found)
            elif found is not None and found.source.has_captions and (found.source.takes_columns or not names_columns):
                where = "the tar" if len(opened.tars) == 1 else f"{len(opened.tars)} tars"
                found.source.taking.why = f"{found.why}, in {where}"
                found.source.unlisted = (*source.unlisted, *opened.contents.rejects)
                return found.source
        view = view.unpacked()
    if misses := misses or _like_captions(opened):
        raise SourceError(_not_understood(opened, misses))
    return source


def _left_out(source: Source, place: Place) -> str:
    """What to say of shards beside images that are not taken."""
    if place.only is not None or not isinstance(source, ImageFolder | SidecarFolder):
        return ""
    shards = [*tar_names(place), *webdataset.compressed_tars(place), *parquet.parquet_names(place)]
    return f"; not read, since no more images are seen there: {', '.join(shards[:3])}" if shards else ""


def _like_captions(place: Place) -> list[Miss]:
    """The files of a place that look like captions, and that no reader has looked at."""
    misses = [
        Miss(shown, CALLED_CAPTIONS) for shown in place.files if _is_called_captions(shown) and _not_read(shown) is None
    ]
    misses += [Miss(shown, HIDDEN_TABLE) for shown, file in place.files.items() if may_be_hidden_table(shown, file)]
    return misses + [Miss(shown, what_to_do) for shown in place.files if (what_to_do := _not_read(shown)) is not None]


def _not_read(name: str) -> str | None:
    """What a file is by its ending, and what to do, if it looks like captions and is not read."""
    return next((what_to_do for ending, what_to_do in NOT_READ.items() if name.lower().endswith(ending)), None)


def _is_called_captions(shown: str) -> bool:
    """Whether a file is called captions, and no reader of tables has looked at it."""
    path = PurePosixPath(shown)
    words = re.split(r"[\W_]+", path.stem.lower())
    called = bool({"caption", "captions", "descriptions"} & {*words})
    return called and path.suffix.lower() not in IMAGE_SUFFIXES and not may_be_a_table(shown)


def _not_understood(place: Place, misses: Sequence[Miss]) -> str:
    if place.only is not None:
        return f"{place.shown} cannot be read as a collection: {misses[0].seen}"
    seen = "; ".join(f"{miss.file}: {miss.seen}" for miss in misses[:3])
    return (
        f"{place.shown} has files that look like captions and were not understood ({seen})."
        f" What is read: {LAYOUTS}. --no-captions takes the images alone"
    )
