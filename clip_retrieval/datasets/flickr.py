"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) and Flickr30k (Young et al., 2014) in their public layouts.

    original   Flickr8k.token.txt or results_20130124.token, lines ``name.jpg#0<TAB>caption``, here or in Flickr8k_text/
    Kaggle's   captions.txt, a CSV with the header ``image,caption``

Both may have ``Flickr_8k.{trainImages,devImages,testImages}.txt`` beside the captions, one name per line; images that
no list names have no split. The images are in Flicker8k_Dataset/ (this is the spelling of the original),
Flickr8k_Dataset/, flickr30k-images/, Images/ or the folder itself. Kaggle's ``results.csv`` of Flickr30k is a table.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clip_retrieval.datasets import csv_table
from clip_retrieval.datasets.base import IMAGE_SUFFIXES, FolderSource
from clip_retrieval.datasets.names import image_file
from clip_retrieval.datasets.place import Fit, Place, SourceOptions
from clip_retrieval.datasets.rows import Row, images_of_rows
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.datasets.text_file import encoding_of, lines_of
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, Split

TOKENS = "Flickr8k.token.txt"
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


class Flickr(FolderSource):
    """The collection below ``root``; the file name is the image_id and ``name.jpg#0`` the caption_id.

    An image that has captions but no file is one Reject. Raises SourceError if no image has a file.
    """

    def __init__(self, root: Path, captions: Path, options: SourceOptions) -> None:
        super().__init__(root)
        self._captions = captions
        self._options = options
        self.name = "flickr30k" if captions.name.startswith("results") else "flickr8k"
        self.taking.why = f"{captions.name} has the captions"

    def read(self) -> Iterator[CaptionedImage | Reject]:
        self.taking.columns = {"image": ["image"], "captions": ["caption"]}
        yield from images_of_rows(self._rows(), lambda name: image_file(self.root, name), self.taking)
        read = {self._captions, *(self._captions.parent / name for name in _SPLIT_FILES.values())}
        folder, present = self._images()
        read |= {self.root / folder / name for name in self._named & present}
        self.taking.unused = count_unused(Place(self.root), read, "images that have no captions")

    def _rows(self) -> Iterator[Row | Reject]:
        folder, present = self._images()
        splits = _splits(self._captions.parent)
        self._named: set[str] = set()
        for row in self._listed():
            if isinstance(row, Reject):
                yield row
                continue
            name = str(row.image or "").strip()
            if name in present:
                self._named.add(name)
                yield replace(row, image=f"{folder}/{name}", image_id=name, split=splits.get(name))
            elif name not in self._named:
                self._named.add(name)
                yield Reject(row.where, f"the image {name!r} is not in {folder}/")

    def _listed(self) -> Iterator[Row | Reject]:
        path = self._captions
        if path.name == KAGGLE:
            table = csv_table.understand(path, self._options)
            self.taking.files = [table.taken(path.name)]
            return table.rows(path.name)
        encoding = encoding_of(path, self._options.encoding)
        self.taking.files = [TakenFile(path.name, encoding, "\t")]
        return _token_rows(path, encoding)

    def _images(self) -> tuple[str, frozenset[str]]:
        for folder in _IMAGE_FOLDERS:
            try:
                files = [p.name for p in (self.root / folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SourceError(f"{self.root / folder} cannot be read: {error.strerror}") from error
            if files:
                return folder, frozenset(files)
        looked = ", ".join(f"{folder}/" for folder in _IMAGE_FOLDERS)
        raise SourceError(f"{self.root} has captions of Flickr8k but no images; put the images into one of {looked}")


def fits(place: Place, options: SourceOptions) -> Fit | None:
    """Flickr8k or Flickr30k, unless a table named captions says that the folder is something else."""
    if place.path.is_file() and not place.path.name.endswith(_TOKEN_SUFFIXES):
        return None
    captions = place.path if place.path.is_file() else captions_file(place.root)
    if captions is None or any((place.root / f"captions{suffix}").is_file() for suffix in (".csv", ".jsonl", ".tsv")):
        return None
    source = Flickr(place.root, captions, options)
    return Fit(source, source.taking.why)


def captions_file(root: Path) -> Path | None:
    """The captions file that identifies ``root`` as Flickr8k or Flickr30k; None if there is none."""
    for folder in (root, root / "Flickr8k_text"):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.name.endswith(_TOKEN_SUFFIXES) and "lemma" not in path.name and path.is_file():
                    return path
    kaggle = root / KAGGLE
    if kaggle.is_file():
        with kaggle.open("rb") as file:
            header = file.readline(64).removeprefix(b"\xef\xbb\xbf").split()
        if header == [b"image,caption"]:
            return kaggle
    return None


def _token_rows(path: Path, encoding: str) -> Iterator[Row | Reject]:
    for number, line in enumerate(lines_of(path, encoding), 1):
        where = f"{path.name} line {number}"
        key, tab, caption = line.rstrip("\r\n").partition("\t")
        name, mark, _ = key.rpartition("#")
        if tab and mark:
            yield Row(where, name, [caption], caption_id=key)
        elif line.strip():
            yield Reject(where, "not of the form name.jpg#0<TAB>caption")


def _splits(folder: Path) -> dict[str, Split]:
    """The split of each listed image. An image in two lists gets the split that is held out most (test, val, train)."""
    return {
        line.strip(): split
        for split, name in _SPLIT_FILES.items()
        if (folder / name).is_file()
        for line in lines_of(folder / name, encoding_of(folder / name))
    }
