"""The base class of readers, and the functions that readers share: which files are images, names of files and splits.

A reader yields a CaptionedImage for each image and a Reject for each item that it could not read. It opens no image:
validation finds missing and damaged files. A source that cannot be read at all raises SourceError.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.taking import Taking
from clip_retrieval.records import CaptionedImage, Reject, Split

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


class Source(ABC):
    """A collection that can be read. Each iteration gives the same items in the same order.

    ``name`` is the layout. ``has_captions`` says whether the layout has captions at all; without captions only image
    search works.
    """

    name: ClassVar[str]
    has_captions: ClassVar[bool] = True

    @cached_property
    def taking(self) -> Taking:
        """How the source was understood; whole after the first iteration."""
        return Taking(self.name, "")

    def __iter__(self) -> Iterator[CaptionedImage | Reject]:
        """The images, each with a unique ``image_id``; a later image with a used id becomes a Reject."""
        owners: dict[str, str] = {}
        for item in self.read():
            if isinstance(item, CaptionedImage):
                if (owner := owners.get(item.image_id)) is not None:
                    reason = f"image_id {item.image_id!r} is already used by {owner}; give each its own"
                    yield Reject(item.blob.name, reason)
                    continue
                owners[item.image_id] = item.blob.name
            yield item

    @abstractmethod
    def read(self) -> Iterator[CaptionedImage | Reject]:
        """The images as the layout gives them; their ids need not be unique yet. Raises SourceError."""


class FolderSource(Source):
    """A collection of image files; ``root`` is the absolute folder that image names are relative to."""

    def __init__(self, root: Path) -> None:
        self.root = absolute(root)

    def named(self, path: Path) -> FileBlob:
        """The image file ``path`` below ``root``, with its relative path as the name."""
        return FileBlob(path, path.relative_to(self.root).as_posix())


def absolute(path: Path) -> Path:
    """An absolute path without ``..``. Symbolic links are kept, so that names inside a source stay as they are."""
    return Path(os.path.normpath(Path.cwd() / path))


def image_file(root: Path, name: str) -> FileBlob:
    """The image file that a table calls ``name``.

    Names are relative to ``root`` or absolute, with forward or backward slashes. A table belongs to the user, so it may
    name files outside ``root``. Users see only the bare file name of such an image, never a folder of this machine.
    Raises ValueError with the reason if ``name`` cannot be a path.
    """
    name = name.strip().replace("\\", "/")
    if not name or "\0" in name:
        raise ValueError("the row names no image")
    path = absolute(root / name)
    return FileBlob(path, path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)


def parse_split(name: str) -> Split | None:
    """The split of this name in any common spelling; None for an empty name. Raises ValueError for other names."""
    if not (key := name.strip().lower()):
        return None
    if key not in _SPLIT_NAMES:
        raise ValueError(f"split {name!r} is unknown; use one of {', '.join(_SPLIT_NAMES)}")
    return _SPLIT_NAMES[key]


def is_text(value: str) -> bool:
    """Whether a string can be stored. Bytes that are not UTF-8 and lone surrogates of JSON escapes cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_images(root: Path) -> Iterator[Path | Reject]:
    """Every file below ``root`` with the suffix of an image, in order of name, folder by folder.

    Links to folders are followed, unless they lead back to a folder that contains them. Hidden files and folders are
    skipped. A folder that cannot be listed is a Reject, and so is a file name that is not text.
    """
    yield from _walk(root, root, frozenset())


def _walk(folder: Path, root: Path, above: frozenset[Path]) -> Iterator[Path | Reject]:
    real = Path(os.path.realpath(folder))
    if real in above:
        return
    try:
        entries = [(entry, entry.is_dir(), entry.is_file()) for entry in folder.iterdir()]
    except OSError as error:
        yield Reject(folder.relative_to(root).as_posix(), f"the folder cannot be listed: {error.strerror}")
        return
    for entry, is_folder, is_file in sorted(entries):
        if entry.name.startswith("."):
            continue
        if is_folder:
            yield from _walk(entry, root, above | {real})
        elif entry.suffix.lower() in IMAGE_SUFFIXES and is_file:
            shown = entry.relative_to(root).as_posix()
            yield entry if is_text(shown) else Reject(ascii(shown)[1:-1], "the file name is not UTF-8 text")
