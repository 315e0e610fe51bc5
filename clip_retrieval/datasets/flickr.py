"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) and Flickr30k (Young et al., 2014) in their public layouts.

    original   Flickr8k.token.txt or results_20130124.token, lines ``name.jpg#0<TAB>caption``, here or in Flickr8k_text/
    Kaggle's   captions.txt, a CSV with the header ``image,caption``

Both may have ``Flickr_8k.{trainImages,devImages,testImages}.txt`` beside the captions, one name per line; images that
no list names have no split. The images are in or below Flicker8k_Dataset/ (this is the spelling of the original),
Flickr8k_Dataset/, flickr30k-images/, Images/ or the folder itself; their names are understood as those of tables.
Kaggle's ``results.csv`` of Flickr30k is a table.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from clip_retrieval.datasets import csv_table
from clip_retrieval.datasets.base import IMAGE_SUFFIXES, Source
from clip_retrieval.datasets.image_files import count_images
from clip_retrieval.datasets.names import ImageNames, fold_name, moved_note
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.rows import Find, Row, images_of_rows
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.datasets.tar_place import tar_names
from clip_retrieval.datasets.text_file import encoding_of, lines_of
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, Reject, Split

KAGGLE = "captions.txt"
_TOKEN_SUFFIXES = (".token", ".token.txt")
_IMAGE_FOLDERS = (
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
    "Images",
    "images",
    ".",
)
_SPLIT_FILES: dict[Split, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_TOKEN_LINE = re.compile(rb"#[^\t\r\n]*\t")
_SAMPLE_BYTES = 2**16


class Flickr(Source):
    """The collection of a place; the file name is the image_id and ``name.jpg#0`` the caption_id.

    An image that has captions but no file is one Reject. Raises SourceError if no image has a file.
    """

    def __init__(self, place: Place, captions: str, options: SourceOptions) -> None:
        self._place = place
        self._captions = place.files[captions]
        self._options = options
        base_name = PurePosixPath(captions).name
        self.name = "flickr30k" if base_name.startswith("results") else "flickr8k"
        self.taking.why = f"{base_name} has the captions"

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking
        taking.columns, taking.notes = {"image": ["image"], "caption": ["caption"]}, []
        names = ImageNames(self._place, self._images())
        yield from images_of_rows(self._rows(names), taking)
        used = {self._captions.name, *(self._beside(name) for name in _SPLIT_FILES.values()), *names.used}
        taking.notes += moved_note([names.moved])
        taking.unused = count_unused(self._place, used, "images that have no captions")

    def _rows(self, names: ImageNames) -> Iterator[tuple[Row, Find] | Reject]:
        splits = self._splits()
        missing: set[str] = set()
        empty = True
        for row in self._listed():
            empty = False
            if isinstance(row, Reject):
                yield row
                continue
            name = str(row.image or "")
            try:
                found = names.find(name)
                if not names.is_here(name):
                    raise ValueError(f"the image {name!r} is not in {names.folder or '.'}/")
            except ValueError as error:
                if name not in missing:
                    yield Reject(row.where, str(error), may_hide=True)
                missing.add(name)
                continue
            image_id = found.name.removeprefix(f"{names.folder}/")
            split = splits.get(fold_name(name)) or splits.get(fold_name(PurePosixPath(found.name).name))
            yield replace(row, image=name, image_id=image_id, split=split), names.find
        if empty:
            self.taking.notes.append(f"{self._captions.name} has no row")

    def _listed(self) -> Iterator[Row | Reject]:
        file = self._captions
        if PurePosixPath(file.name).name == KAGGLE:
            table = csv_table.understand(file, self._options)
            self.taking.files = [table.taken()]
            return table.rows()
        encoding = encoding_of(file, self._options.encoding)
        self.taking.files = [TakenFile(file.name, encoding.name, "\t", guessed=not encoding.sure)]
        return _token_rows(file, encoding.name)

    def _images(self) -> str:
        """The first folder that has images, also below it. Raises SourceError if there is none."""
        images = [PurePosixPath(name) for name in self._place.files]
        images = [path for path in images if path.suffix.lower() in IMAGE_SUFFIXES]
        for folder in _IMAGE_FOLDERS:
            if any(path.is_relative_to(folder) for path in images):
                return folder
        looked = ", ".join(f"{folder}/" for folder in _IMAGE_FOLDERS)
        raise SourceError(f"{self._place.shown} has captions but no images; put the images into one of {looked}")

    def _splits(self) -> dict[str, Split]:
        """The split of each listed image by its folded name; in two lists, the split that is held out most."""
        found: dict[str, Split] = {}
        for split, name in _SPLIT_FILES.items():
            if (file := self._place.files.get(self._beside(name))) is not None:
                found |= {fold_name(line.strip()): split for line in lines_of(file, encoding_of(file).name)}
        return found

    def _beside(self, name: str) -> str:
        return str(PurePosixPath(self._captions.name).parent / name)


def fits(place: Place, options: SourceOptions) -> Fit | None:
    """Flickr8k or Flickr30k, unless a table named captions says that the folder is something else."""
    if place.only is not None and not place.only.endswith(_TOKEN_SUFFIXES):
        return None
    captions = place.only or captions_name(place)
    if captions is None or options.image_column or options.caption_columns:  # then it is a table
        return None
    if captions == KAGGLE and tar_names(place) and not count_images(place):  # a table finds images in tars
        return None
    if any(f"captions{suffix}" in place.files for suffix in (".csv", ".jsonl", ".tsv")):
        return None
    source = Flickr(place, captions, options)
    return Fit(source, source.taking.why)


def captions_name(place: Place) -> str | None:
    """The captions file that identifies a place as Flickr8k or Flickr30k; None if there is none."""
    for name, file in place.files.items():
        is_called = name.endswith(_TOKEN_SUFFIXES) and "lemma" not in name
        if is_called and str(PurePosixPath(name).parent) in {".", "Flickr8k_text"} and _has_token_line(file):
            return name
    if (kaggle := place.files.get(KAGGLE)) is not None:
        with kaggle.open() as opened:
            header = opened.readline(64).removeprefix(b"\xef\xbb\xbf").split()
        if header == [b"image,caption"]:
            return KAGGLE
    return None


def _has_token_line(file: StoredFile) -> bool:
    """Whether a line at the beginning of a file, in any encoding, is of the form that ``_token_rows`` reads."""
    try:
        return _TOKEN_LINE.search(file.read(_SAMPLE_BYTES).replace(b"\0", b"")) is not None
    except ImageRejected:
        return False


def _token_rows(file: StoredFile, encoding: str) -> Iterator[Row | Reject]:
    for number, line in enumerate(lines_of(file, encoding), 1):
        where = f"{PurePosixPath(file.name).name} line {number}"
        key, tab, caption = line.rstrip("\r\n").partition("\t")
        name, mark, _ = key.rpartition("#")
        if tab and mark:
            yield Row(where, name, [caption], caption_id=key)
        elif line.strip():
            yield Reject(where, "not of the form name.jpg#0<TAB>caption", may_hide=True)
