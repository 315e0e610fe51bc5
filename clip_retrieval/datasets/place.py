"""Where a source is, what lies there, and how readers say whether they can read it.

Every reader has a function ``fits(place, options)``. It looks at names and at the beginning of files, and returns a
``Fit`` with the source and why it fits, a ``Miss`` with what looks like captions and was not understood, or None.
"""

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clip_retrieval.datasets.base import Source, absolute, image_file, is_text
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.records import Reject


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a person said about a source, beside its place."""

    image_column: str | None = None
    caption_columns: tuple[str, ...] = ()
    no_captions: bool = False
    """Whether the images are taken alone, whatever files lie beside them."""


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
        """Every file below ``root`` that is not hidden, by its relative path with slashes, in order.

        Links to folders are followed, unless they lead back to a folder that contains them.
        """
        return {name: FileBlob(path, name) for name, path in self._walk(self.root, frozenset())}

    def image(self, folder: str, name: str) -> StoredFile:
        """The image that a table in ``folder`` (relative to ``root``) calls ``name``: a file there, or one below it.

        Names may have backward slashes, and be relative to ``root`` too. A file that is not there can be named; reading
        it says so. Raises ValueError if ``name`` is no path, or is that of several files below the folder.
        """
        relative = posixpath.normpath(name.strip().replace("\\", "/"))
        for candidate in (posixpath.normpath(posixpath.join(folder, relative)), relative):
            if candidate in self.files:
                return self.files[candidate]
        below = self._by_base_name.get(posixpath.basename(relative), ())
        inside = [found for found in below if found.startswith(f"{folder}/" if folder else "")]
        ending = [found for found in inside if found.endswith(f"/{relative}")]
        if len(ending) > 1:
            raise ValueError(f"{relative} is the name of several files: {', '.join(ending[:3])}")
        if ending:
            return self.files[ending[0]]
        return self.elsewhere(folder, name)

    def elsewhere(self, folder: str, name: str) -> StoredFile:
        """The image that a table in ``folder`` calls ``name``, and that is not among the files. Raises ValueError."""
        return image_file(self.root / folder, name)

    @cached_property
    def _by_base_name(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.files:
            found.setdefault(posixpath.basename(name), []).append(name)
        return found

    def _walk(self, folder: Path, above: frozenset[str]) -> Iterator[tuple[str, Path]]:
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name, entry.is_dir(), entry.is_file()) for entry in entries)
        except OSError as error:
            name = folder.relative_to(self.root).as_posix()
            self.rejects.append(Reject(name, f"the folder cannot be listed: {error.strerror}"))
            return
        for name, is_folder, is_file in found:
            if name.startswith("."):
                continue
            path = folder / name
            if is_folder:
                yield from self._walk(path, above | {real})
            elif is_file:
                shown = path.relative_to(self.root).as_posix()
                if is_text(shown):
                    yield shown, path
                else:
                    self.rejects.append(Reject(ascii(shown)[1:-1], "the file name is not UTF-8 text"))
