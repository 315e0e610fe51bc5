"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) in its public layouts.

    original   Flickr8k.token.txt, lines ``name.jpg#0<TAB>caption``, here or in Flickr8k_text/
    Kaggle's   captions.txt, a CSV with the header ``image,caption``

Both may have ``Flickr_8k.{trainImages,devImages,testImages}.txt`` beside the captions, one name per line; images that
no list names have no split. The images are in Flicker8k_Dataset/ (this is the spelling of the original),
Flickr8k_Dataset/, Images/ or the folder itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from clip_retrieval.datasets.base import IMAGE_SUFFIXES, FolderSource
from clip_retrieval.datasets.rows import Row, csv_rows, images_of_rows
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, Split

TOKENS = "Flickr8k.token.txt"
KAGGLE = "captions.txt"
_IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images", ".")
_SPLIT_FILES: dict[Split, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


class Flickr8k(FolderSource):
    """The collection below ``root``; the file name is the image_id and ``name.jpg#0`` the caption_id.

    An image that has captions but no file is one Reject. Raises SourceError if no image has a file.
    """

    name: ClassVar[str] = "flickr8k"

    def read(self) -> Iterator[CaptionedImage | Reject]:
        captions = captions_file(self.root)
        if captions is None:
            raise SourceError(f"{self.root} has neither {TOKENS} nor {KAGGLE} with the header image,caption")
        return images_of_rows(self._rows(captions), self.root)

    def _rows(self, captions: Path) -> Iterator[Row | Reject]:
        folder, present = self._images()
        splits = _splits(captions.parent)
        missing: set[str] = set()
        for row in _token_rows(captions) if captions.name == TOKENS else csv_rows(captions):
            if isinstance(row, Reject):
                yield row
                continue
            name = str(row.values.get("image", "")).strip()
            if name in present:
                found = {"image": f"{folder}/{name}", "image_id": name, "split": splits.get(name)}
                yield Row(row.where, {**row.values, **found})
            elif name not in missing:
                missing.add(name)
                yield Reject(row.where, f"the image {name!r} is not in {folder}/")

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


def captions_file(root: Path) -> Path | None:
    """The captions file that identifies ``root`` as Flickr8k; None if there is none."""
    for path in (root / TOKENS, root / "Flickr8k_text" / TOKENS):
        if path.is_file():
            return path
    kaggle = root / KAGGLE
    if kaggle.is_file():
        with kaggle.open("rb") as file:
            header = file.readline(64).removeprefix(b"\xef\xbb\xbf").split()
        if header == [b"image,caption"]:
            return kaggle
    return None


def _token_rows(path: Path) -> Iterator[Row | Reject]:
    for number, line in enumerate(_lines(path), 1):
        where = f"{path.name} line {number}"
        key, tab, caption = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if tab and mark:
            yield Row(where, {"image": name, "caption_id": key, "caption": caption})
        elif line.strip():
            yield Reject(where, "not of the form name.jpg#0<TAB>caption")


def _splits(folder: Path) -> dict[str, Split]:
    """The split of each listed image. An image in two lists gets the split that is held out most (test, val, train)."""
    return {
        line.strip(): split
        for split, name in _SPLIT_FILES.items()
        if (folder / name).is_file()
        for line in _lines(folder / name)
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
