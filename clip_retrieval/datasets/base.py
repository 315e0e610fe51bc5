"""What every reader is, and what readers share: which files are images, and the names of files and splits.

A reader yields CaptionedImage for what it could read and Reject for what it could not. It opens no image: a
missing or damaged file is found by validation. A source that cannot be read at all raises SourceError.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

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
    """A collection on disk. Iterating gives the same items in the same order every time.

    ``name`` is the layout; ``root`` the absolute folder that image names are relative to; ``has_captions``
    says whether the layout carries captions at all (without them only image search works).
    """

    name: ClassVar[str]
    has_captions: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        self.root = absolute(root)

    def __iter__(self) -> Iterator[CaptionedImage | Reject]:
        """Every image with an ``image_id`` of its own; a later image under a used id is a Reject."""
        owners: dict[str, str] = {}
        for item in self.read():
            if isinstance(item, CaptionedImage):
                if (owner := owners.get(item.image_id)) is not None:
                    reason = f"image_id {item.image_id!r} is already used by {owner}; give each its own"
                    yield Reject(item.image_path, reason)
                    continue
                owners[item.image_id] = item.image_path
            yield item

    @abstractmethod
    def read(self) -> Iterator[CaptionedImage | Reject]:
        """The images as the layout gives them, whose ids need not be unique yet. Raises SourceError."""


def absolute(path: Path) -> Path:
    """An absolute path without ``..``; symbolic links are kept, and so are the names inside a source."""
    return Path(os.path.normpath(Path.cwd() / path))


def locate(root: Path, name: str) -> tuple[Path, str]:
    """The file that a table calls ``name``, and the name under which users see it.

    Names are relative to ``root`` or absolute, with forward or backward slashes. A table is its owner's own
    file, so it may point outside ``root``; of such an image users see the bare file name, never a folder of
    this machine. Raises ValueError with the reason if ``name`` cannot be a path.
    """
    name = name.strip().replace("\\", "/")
    if not name or "\0" in name:
        raise ValueError("the row names no image")
    path = absolute(root / name)
    return path, path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def parse_split(name: str) -> Split | None:
    """The split of that name in any usual spelling; None for an empty one. Raises ValueError for others."""
    if not (key := name.strip().lower()):
        return None
    if key not in _SPLIT_NAMES:
        raise ValueError(f"split {name!r} is none of {', '.join(_SPLIT_NAMES)}")
    return _SPLIT_NAMES[key]


def is_text(value: str) -> bool:
    """Whether a string can be stored: undecodable bytes and lone surrogates of JSON escapes cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def find_images(root: Path) -> Iterator[Path | Reject]:
    """Every image file below ``root`` by its suffix, in order of name, folder by folder.

    Links to folders are followed unless they lead back to a folder they are in. Hidden files and folders are
    passed over. A folder that cannot be listed and a file name that is not text are Rejects.
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
