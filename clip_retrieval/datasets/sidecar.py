"""A folder in which each image has a file of its own for its captions: text, one caption per line, or JSON.

``sidecar_files.py`` says which file belongs to which image, ``sidecar_reader.py`` what is in it.
"""

import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.image_files import images_below
from clip_retrieval.datasets.json_values import not_repeated
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.samples import Sample, images_of
from clip_retrieval.datasets.sidecar_files import Sidecars
from clip_retrieval.datasets.sidecar_reader import SidecarReader
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.records import CaptionedImage, Reject

_LOOKED_AT = 1000
"""JSON files that are read to see whether any has a caption."""


class SidecarFolder(Source):
    """Every image below a folder with what the files of its name say, if there are any.

    The relative path is the image_id. Text files without an image (a README) are counted as not used.
    """

    name = "sidecar"

    def __init__(self, place: Place, sidecars: Sidecars, options: SourceOptions, *, has_captions: bool) -> None:
        self._place = place
        self._options = options
        self._sidecars = sidecars
        self.has_captions = has_captions
        self.takes_columns = options.image_column is None and sidecars.has_json

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking
        taking.columns, taking.fields, taking.notes = {}, {}, []
        used: set[str] = set()
        files = SidecarReader(self._options, self._texts)
        for found in images_below(self._place):
            used.add(found.where if isinstance(found, Reject) else found.name)
            if isinstance(found, Reject):
                yield found
                continue
            texts = [file for file in self._sidecars.texts_of(found.name) if files.wants(file)]
            jsons = self._sidecars.json_of(found.name)
            used.update(file.name for file in (*texts, *jsons))
            if (folder := str(PurePosixPath(found.name).with_suffix(".txt"))) in self._place.folders:
                yield Reject(folder, "a folder, not a text file with captions")
            lines: list[str] = []
            for file in texts:
                yield from files.add_lines(file, lines)
            values: dict[str, object] = {}
            for file in jsons:
                yield from files.add_values(file, values)
            roles = files.roles_in(values)
            image = found.named(unicodedata.normalize("NFC", found.name))
            where = jsons[0].name if jsons else image.name
            captions = tuple(not_repeated(lines, values, roles))
            yield from images_of(Sample(where, image, values, roles, None, captions), taking)
        files.tell(taking)
        taking.unused = count_unused(self._place, used, "images")

    def _texts(self) -> Iterator[StoredFile]:
        return (file for image in _images(self._place) for file in self._sidecars.texts_of(image))


def fits(place: Place, options: SourceOptions) -> Fit | None:
    """A folder in which any image has a text file, or JSON with a caption."""
    if place.only is not None:
        return None
    sidecars = Sidecars(place)
    with_text = ((file, image) for image in _images(place) for file in sidecars.texts_of(image))
    with_json = ((file, image) for image in _images(place) for file in sidecars.json_of(image))
    reader = SidecarReader(options, lambda: ())
    first = next(with_text, None)
    if first is None:
        first = next((pair for pair in islice(with_json, _LOOKED_AT) if reader.has_caption(pair[0])), None)
    return None if first is None else _fit(first, SidecarFolder(place, sidecars, options, has_captions=True))


def fits_fields(place: Place, options: SourceOptions) -> Fit | None:
    """A folder in which any image has JSON with fields and no caption."""
    if place.only is not None:
        return None
    sidecars = Sidecars(place)
    first = next(((file, image) for image in _images(place) for file in sidecars.json_of(image)), None)
    return None if first is None else _fit(first, SidecarFolder(place, sidecars, options, has_captions=False))


def _fit(first: tuple[StoredFile, str], source: SidecarFolder) -> Fit:
    file, image = first
    source.taking.why = f"{file.name} stands beside {image}"
    return Fit(source, source.taking.why)


def _images(place: Place) -> Iterator[str]:
    return (found.name for found in images_below(place) if not isinstance(found, Reject))
