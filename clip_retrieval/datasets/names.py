"""The file that a table means by a name.

People write names as their own machine shows them: with backslashes, in another Unicode form, in another case, without
the suffix, percent-encoded, relative to a folder of images below the table, or as a path of another machine. A name
that is a path of this machine is taken as it is. Otherwise it means the one file below the source that fits.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from clip_retrieval.datasets.base import IMAGE_SUFFIXES, absolute
from clip_retrieval.datasets.file_blob import FileBlob

_SHOWN = 3


def image_file(root: Path, name: str) -> FileBlob:
    """The image file that a table calls ``name``, whether or not it exists.

    Names are relative to ``root`` or absolute, with forward or backward slashes. A table belongs to the user, so it may
    name files outside ``root``. Users see only the bare file name of such an image, never a folder of this machine.
    Raises ValueError with the reason if ``name`` cannot be a path.
    """
    name = name.strip().replace("\\", "/")
    if not name or "\0" in name:
        raise ValueError("the row names no image")
    return _blob(root, absolute(root / name))


class ImageNames:
    """Finds the files that a table names, below ``root`` and relative to the folder ``base`` of the table."""

    def __init__(self, root: Path, base: Path, files: Callable[[], Mapping[str, Path]]) -> None:
        """``files`` gives every file below ``root`` by its relative path; it is asked only if a name is no path."""
        self._root = root
        self._base = base
        self._files = files
        self.used: set[Path] = set()
        """The files that names led to."""
        self._found: dict[str, FileBlob] = {}

    def find(self, name: str) -> FileBlob:
        """The file that ``name`` means. A file that does not exist is the path that the name spells.

        Raises ValueError with the reason if the name is no file name, or means more than one file.
        """
        if (blob := self._found.get(name)) is not None:  # tables have a row for each caption
            return blob
        path = _without_scheme(name.strip())
        spelled = image_file(self._base, path).path
        found = next((each for each in self._paths(path, spelled) if os.path.lexists(each)), spelled)
        self.used.add(found)
        self._found[name] = blob = _blob(self._root, found)
        return blob

    def _paths(self, name: str, spelled: Path) -> Iterator[Path]:
        yield self._base / name  # a backslash may be part of a name
        yield spelled
        yield image_file(self._root, name).path
        for spelling in dict.fromkeys((name, unquote(name))):
            if (path := self._below(spelling)) is not None:
                yield path

    def _below(self, name: str) -> Path | None:
        parts = _parts(name)
        if not parts:
            return None
        tails = ["/".join(parts)]
        if PureWindowsPath(name).drive or name.startswith(("/", "\\")):  # a path of another machine
            tails = ["/".join(parts[start:]) for start in range(len(parts) - 1)]
        for tail in tails:
            for known in (self._by_name, self._by_stem):
                if (found := self._one_of(tail, known)) is not None:
                    return found
        return None

    def _one_of(self, tail: str, known: Mapping[str, list[tuple[str, Path]]]) -> Path | None:
        """The one file whose path ends with ``tail``, in the same case if there are several."""
        folded = fold_name(tail)
        fits = [path for shown, path in known.get(folded.rsplit("/", 1)[-1], ()) if f"/{shown}".endswith(f"/{folded}")]
        same_case = [path for path in fits if f"/{tail}" in f"/{path.as_posix()}"]
        fits = same_case or fits
        if len(fits) > 1:
            names = ", ".join(_blob(self._root, path).name for path in fits[:_SHOWN])
            raise ValueError(f"{tail!r} means {len(fits)} files ({names}); write the path of one of them")
        return fits[0] if fits else None

    @cached_property
    def _by_name(self) -> Mapping[str, list[tuple[str, Path]]]:
        """Every file by its folded name, with its folded path. The name of ``root`` counts as a folder too."""
        found: dict[str, list[tuple[str, Path]]] = {}
        for shown, path in self._files().items():
            folded = fold_name(f"{self._root.name}/{shown}")
            found.setdefault(folded.rsplit("/", 1)[-1], []).append((folded, path))
        return found

    @cached_property
    def _by_stem(self) -> Mapping[str, list[tuple[str, Path]]]:
        """The images by their folded name without its suffix."""
        found: dict[str, list[tuple[str, Path]]] = {}
        for several in self._by_name.values():
            for folded, path in several:
                stem, _, suffix = folded.rpartition(".")
                if f".{suffix}" in IMAGE_SUFFIXES:
                    found.setdefault(stem.rsplit("/", 1)[-1], []).append((stem, path))
        return found


def _blob(root: Path, path: Path) -> FileBlob:
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return FileBlob(path, unicodedata.normalize("NFC", shown))


def fold_name(name: str) -> str:
    """A name without the difference of case and of Unicode's forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _parts(name: str) -> list[str]:
    """The parts of a path without its drive, its root and ``.``; nothing for a path that leads up."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"/", "."}]
    if ".." in parts:
        return []
    return parts[1:] if parts and parts[0].endswith(":") else parts


def _without_scheme(name: str) -> str:
    """A ``file:`` address as a path. Raises ValueError for the addresses of other machines."""
    scheme, mark, _ = name.partition("://")
    if not mark or not scheme.isalnum():
        return name
    if scheme.lower() != "file":
        raise ValueError(f"{name} is an address; download the images first (img2dataset does), then name the files")
    return unquote(urlsplit(name).path)
