"""Where a source is, what lies there, and how readers say whether they can read it.

Every reader has a function ``fits(place, options)``. It looks at names and at the beginning of files, and returns a
``Fit`` with the source and why it fits, a ``Miss`` with what looks like captions and was not understood, or None.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from clip_retrieval.datasets.base import Source, absolute, is_text
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.records import Reject


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a person said about a source, beside its place."""

    image_column: str | None = None
    caption_columns: tuple[str, ...] = ()
    encoding: str | None = None
    """The encoding of text files, by Python's name; None to detect it."""
    take_vectors: bool = False
    """Whether vectors that another program made are taken as they are."""
    no_captions: bool = False
    """Whether the images are taken alone, whatever files lie beside them."""


DEFAULT_OPTIONS = SourceOptions()


@dataclass(frozen=True, slots=True)
class Fit:
    """A reader for the source, and why it fits, for people."""

    source: Source
    why: str


@dataclass(frozen=True, slots=True)
class Miss:
    """A file that looks like captions and cannot be read; ``seen`` says what was seen and what would be read."""

    file: str
    seen: str


@dataclass(frozen=True)
class Place:
    """A file or a folder that a person named."""

    path: Path
    """Absolute."""
    rejects: list[Reject] = field(default_factory=list, compare=False)
    """Folders that could not be listed, and files whose names are not text; whole once ``files`` was read."""
    folders: list[str] = field(default_factory=list, compare=False)
    """The relative path of every folder; whole once ``files`` was read."""

    @classmethod
    def at(cls, path: Path) -> "Place":
        return cls(absolute(path))

    @property
    def root(self) -> Path:
        """The folder: the path itself, or that of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def shown(self) -> str:
        """The place for people: the path, or the URL."""
        return str(self.path)

    @property
    def only(self) -> str | None:
        """The name of the file, if the person named a file and no folder."""
        return None if self.path.is_dir() else self.path.name

    @cached_property
    def files(self) -> Mapping[str, StoredFile]:
        """Every file below ``root`` that is not hidden, by its relative path with slashes, folder by folder in order.

        The file that a person named is among them, also if it is hidden, or if its folder cannot be listed. Links to
        folders are followed. A folder that several paths lead to is taken once, by a path without links if there is
        one.
        """
        found = {} if self.only is None else {self.only: self.path}
        links = [self.root]
        seen: set[str] = set()
        while links:
            link = links.pop(0)
            waiting = [(link, os.path.realpath(link))]
            while waiting:
                folder, real = waiting.pop()
                if real not in seen:
                    seen.add(real)
                    below = self._list(folder, found, links)
                    waiting += ((path, f"{real.rstrip('/')}/{path.name}") for path in reversed(below))
        return {name: FileBlob(found[name], name) for name in sorted(found, key=lambda name: name.split("/"))}

    def elsewhere(self, folder: str, name: str) -> StoredFile:
        """The file that a table in ``folder`` calls ``name``, and that is not among the files; it need not exist.

        Names are relative to the folder or absolute. A table belongs to the user, so it may name files outside of the
        place. Users see the bare file name of such an image; ``outside.told_apart`` adds folders if several have it.
        Raises ValueError.
        """
        path = absolute(self.root / folder / name)
        if not path.is_relative_to(self.root):
            return FileBlob(path, path.name, is_outside=True)
        return FileBlob(path, path.relative_to(self.root).as_posix())

    def above(self) -> "Place | None":
        """The folder that contains this one; None in a store, and if that would be the whole disk."""
        above = self.root.parent
        return None if above == above.parent else Place(above)

    def unpacked(self) -> "Place | None":
        """The one folder that everything lies in, as archives leave it; None if there are others, or files beside it.

        Of folders in each other it is the last but one, whose name may be that of a split. None in a store, too.
        """
        top = self.only_folder(self.files) if self.only is None else None
        return None if top is None else Place(self.root / top)

    @staticmethod
    def only_folder(names: Iterable[str]) -> str | None:
        """The folder above the one that all of these relative paths share, or that one if it lies at the top."""
        levels = zip(*(name.split("/")[:-1] for name in names), strict=False)
        shared = [level[0] for level in takewhile(lambda level: len({*level}) == 1, levels)]
        return "/".join(shared[:-1] or shared) or None

    def _list(self, folder: Path, found: dict[str, Path], links: list[Path]) -> list[Path]:
        """The folders in a folder. Adds its files to ``found`` and its links to other folders to ``links``."""
        below: list[Path] = []
        shown = folder.relative_to(self.root).as_posix()
        try:
            with os.scandir(folder) as entries:
                listed = sorted((entry.name, entry.is_symlink(), *_kind(entry)) for entry in entries)
        except OSError as error:
            self.rejects.append(Reject(shown, f"the folder cannot be listed: {error.strerror}", may_hide=True))
            return below
        for name, is_link, is_folder, is_file in listed:
            path = folder / name
            shown = path.relative_to(self.root).as_posix()
            if name.startswith(".") or name == "__MACOSX":  # what macOS puts into archives
                continue
            if not is_text(shown):
                self.rejects.append(Reject(ascii(shown)[1:-1], "the file name is not UTF-8 text"))
            elif is_folder:
                self.folders.append(shown)
                (links if is_link else below).append(path)
            elif is_file:
                found[shown] = path
            elif is_link:
                self.rejects.append(Reject(shown, "the link leads nowhere", may_hide=True))
        return below


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether an entry is a folder, and whether it is a file; a link that leads nowhere is neither."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:
        return False, False
