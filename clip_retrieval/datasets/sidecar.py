"""A folder in which text files beside the images have their captions, one per line.

For ``cat.jpg`` these are ``cat.txt``, ``cat.jpg.txt``, ``cat.caption`` and the like, in any case, in the same folder or
in a folder ``captions`` beside it or beside the folder of the images.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import Source, is_text
from clip_retrieval.datasets.image_files import images_below
from clip_retrieval.datasets.names import fold_name
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.datasets.text_file import encoding_of, lines_of
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption

SUFFIXES = frozenset({".txt", ".caption", ".captions", ".cap"})
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpeg", "png", "raw"})
FOLDERS = ("captions", "caption", "text", "texts", "txt")


class SidecarFolder(Source):
    """Every image below a folder, with the non-empty lines of the text file of its name, if that exists.

    The relative path is the image_id. Text files without an image (a README) are counted as not used.
    """

    name = "sidecar"

    def __init__(self, place: Place, options: SourceOptions) -> None:
        self._place = place
        self._options = options

    def read(self) -> Iterator[CaptionedImage | Reject]:
        place = self._place
        sidecars = Sidecars(place)
        used: set[str] = set()
        encodings: dict[str, int] = {}
        for found in images_below(place):
            if isinstance(found, Reject):
                used.add(found.where)
                yield found
                continue
            if (folder := str(PurePosixPath(found.name).with_suffix(".txt"))) in place.folders:
                yield Reject(folder, "a folder, not a text file with captions")
            captions: list[SourceCaption] = []
            for file in sidecars.of(found.name):
                used.add(file.name)
                try:
                    encoding = encoding_of(file, self._options.encoding)
                    lines = list(lines_of(file, encoding))
                except SourceError as error:
                    yield Reject(file.name, str(error.__cause__ or error))
                    continue
                encodings[encoding] = encodings.get(encoding, 0) + 1
                for number, line in enumerate(lines, 1):
                    if is_text(line):
                        captions += [SourceCaption(text)] if (text := line.strip()) else []
                    else:
                        yield Reject(f"{file.name} line {number}", "not UTF-8 text")
            used.add(found.name)
            name = unicodedata.normalize("NFC", found.name)
            yield CaptionedImage(image_id=name, blob=found.named(name), captions=tuple(captions))
        self.taking.files = [TakenFile(f"{count} text files", encoding) for encoding, count in encodings.items()]
        self.taking.columns = {"caption": ["each line of a text file"]}
        self.taking.unused = count_unused(place, used, "images")


class Sidecars:
    """The caption files below a place, by the images that they belong to."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @cached_property
    def _by_name(self) -> Mapping[str, list[StoredFile]]:
        """Caption files by their folded path without the suffix of captions."""
        found: dict[str, list[StoredFile]] = {}
        for shown, file in self._place.files.items():
            path = PurePosixPath(shown)
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(fold_name(shown[: -len(path.suffix)]), []).append(file)
        return found

    def of(self, image: str) -> list[StoredFile]:
        """The caption files of an image, all of one folder: the first of these that has any.

        The folder of the image; ``captions/`` in it; the same path below ``captions/``, with and without the top
        folder; ``captions/`` beside the folder, if that is called as folders of images are. ``image`` is a relative
        path.
        """
        path = PurePosixPath(fold_name(image))
        parts = path.parent.parts
        folders = [path.parent, *(path.parent / name for name in FOLDERS)]
        folders += [PurePosixPath(name, *parts) for name in FOLDERS]
        folders += [PurePosixPath(name, *parts[1:]) for name in FOLDERS if parts[1:]]
        if parts and parts[-1] in IMAGE_FOLDERS:
            folders += [path.parent.parent / name for name in FOLDERS]
        for folder in folders:
            names = dict.fromkeys(str(folder / name) for name in (path.stem, path.name))
            if found := [file for name in names for file in self._by_name.get(name, ())]:
                return found
        return []


def fits(place: Place, options: SourceOptions) -> Fit | None:
    """A folder in which any image has a text file."""
    if place.only is not None:
        return None
    sidecars = Sidecars(place)
    images = (found.name for found in images_below(place) if not isinstance(found, Reject))
    first = next((name for name in images if sidecars.of(name)), None)
    if first is None:
        return None
    source = SidecarFolder(place, options)
    source.taking.why = f"{sidecars.of(first)[0].name} stands beside {first}"
    return Fit(source, source.taking.why)
