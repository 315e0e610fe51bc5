"""The file that a table means by a name.

People write names as their own machine shows them: with backslashes, in another Unicode form, in another case, without
the suffix, percent-encoded, with spaces around them, relative to a folder of images below the table, or as a path of
another machine. A name that is a path of the source or of this machine is taken as it is. Otherwise it means the one
file that fits. Of a path of another machine the longest end counts that fits a file.
"""

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.place import Place
from clip_retrieval.datasets.stored import StoredFile

_SHOWN = 3


class ImageNames:
    """Finds the files that a table in ``folder``, relative to the root of ``place``, calls by their names."""

    def __init__(self, place: Place, folder: str = "") -> None:
        self._place = place
        self.folder = "" if folder == "." else folder
        self._found: dict[str, StoredFile] = {}
        self._nowhere: set[object] = set()
        self._foreign: dict[str, bool] = {}
        self._by_bare_name: dict[str, str] = {}
        self.used: set[str] = set()
        """The files of the place that names led to."""
        self.moved: dict[str, str] = {}
        """The files that were found by the end of a path of another machine, by that path."""

    def find(self, name: str) -> StoredFile:
        """The file that ``name`` means, under its name in Unicode's form NFC. It need not exist on this machine.

        Raises ValueError with the reason if the name is no file name, means more than one file, or no file of a store.
        """
        if (known := self._found.get(name)) is not None:  # tables have a row for each caption
            return known
        spelled = self._without_address(name.strip())
        if not spelled or "\0" in spelled:
            raise ValueError("the row names no image")
        shown = next(self._names(name), None) or next(self._names(spelled), None) or self._below(spelled)
        if shown is None:
            found = self._place.elsewhere(self.folder, spelled.replace("\\", "/"))
            if not self._exists_elsewhere(spelled):
                self._nowhere.add(found.path)
            if (known := self._place.files.get(found.name)) is not None and known.path == found.path:
                self.used.add(found.name)
        else:
            self.used.add(shown)
            found = self._place.files[shown]
        self._found[name] = found = found.named(unicodedata.normalize("NFC", found.name))
        return found

    def is_here(self, name: str) -> bool:
        """Whether ``name``, which ``find`` was asked for, means a file of the place or another one of this machine."""
        return self._found[name].path not in self._nowhere

    def _names(self, name: str) -> Iterator[str]:
        """The paths of the place that ``name`` is, as it is spelled."""
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):  # a backslash may be part of a name
            for relative in (posixpath.join(self.folder, spelling), spelling):
                if (normal := posixpath.normpath(relative)) in self._place.files:
                    yield normal

    def _exists_elsewhere(self, name: str) -> bool:
        """Whether this machine has such a path that is not among the files of the place."""
        try:
            path = self._place.elsewhere(self.folder, name.replace("\\", "/")).path
        except ValueError:
            return False
        return isinstance(path, Path) and os.path.lexists(path)

    def _below(self, name: str) -> str | None:
        """The file of the place that ``name`` means, if no path is spelled so; None if there is none.

        Raises ValueError if it could be several.
        """
        if self._exists_elsewhere(name):
            return None
        for spelling in dict.fromkeys((name, unquote(name))):
            parts = _parts(spelling)
            for start in range(len(parts)):
                if start and start == len(parts) - 1 and not self._is_foreign(spelling):
                    break  # of a relative path, the name alone says too little
                if (found := self._ending(parts[start:])) is not None:
                    if start:
                        self._note_move(name, found, alone=start == len(parts) - 1)
                    return found
        return None

    def _ending(self, parts: Sequence[str]) -> str | None:
        """The one file whose path ends with these parts, with its suffix or without."""
        tail = "/".join(parts)
        return self._one_of(tail, self._by_name) or self._one_of(tail, self._by_stem)

    def _is_foreign(self, name: str) -> bool:
        """Whether a name leads to a folder of another machine: this machine has no such folder."""
        if PureWindowsPath(name).drive or name.startswith("\\"):
            return True
        name = name.replace("\\", "/")
        if not name.startswith(("/", "~", "../")):
            return False
        folder = posixpath.dirname(name)
        if (known := self._foreign.get(folder)) is None:
            here = PurePosixPath(folder).is_relative_to(self._place.root)
            self._foreign[folder] = known = not here and not self._exists_elsewhere(folder)
        return known

    def _note_move(self, name: str, found: str, *, alone: bool) -> None:
        """Keep that ``name`` was found by its end; by its last name ``alone``, two paths cannot mean one file."""
        if alone and _spelled(other := self._by_bare_name.setdefault(found, name)) != _spelled(name):
            raise ValueError(f"{name} could only be {found}, and {other} is that already; write the path of the file")
        self.moved[name] = found

    def _one_of(self, tail: str, known: Mapping[str, list[tuple[str, str]]]) -> str | None:
        """The one file whose path ends with ``tail``, in the same case if there are several."""
        folded = _fold(tail)
        fits = [shown for key, shown in known.get(folded.rsplit("/", 1)[-1], ()) if f"/{key}".endswith(f"/{folded}")]
        fits = [shown for shown in fits if f"/{tail}" in f"/{self._base_name}/{shown}"] or fits
        if len(fits) > 1:
            names = ", ".join(fits[:_SHOWN])
            raise ValueError(f"{tail!r} means {len(fits)} files ({names}); write the path of one of them")
        return fits[0] if fits else None

    @cached_property
    def _base_name(self) -> str:
        return PurePosixPath(self._place.root.as_posix()).name

    @cached_property
    def _by_name(self) -> Mapping[str, list[tuple[str, str]]]:
        """Every file by its folded name, with its folded path. The name of the root counts as a folder too."""
        found: dict[str, list[tuple[str, str]]] = {}
        for shown in self._place.files:
            folded = _fold(f"{self._base_name}/{shown}")
            found.setdefault(folded.rsplit("/", 1)[-1], []).append((folded, shown))
        return found

    @cached_property
    def _by_stem(self) -> Mapping[str, list[tuple[str, str]]]:
        """The images by their folded name without its suffix."""
        found: dict[str, list[tuple[str, str]]] = {}
        for several in self._by_name.values():
            for folded, shown in several:
                stem, _, suffix = folded.rpartition(".")
                if f".{suffix}" in IMAGE_SUFFIXES:
                    found.setdefault(stem.rsplit("/", 1)[-1], []).append((stem, shown))
        return found

    def _without_address(self, name: str) -> str:
        """A ``file:`` address as a path, and one of this store as a name. Raises ValueError for other addresses."""
        scheme, mark, _ = name.partition("://")
        if not mark or not scheme.isalnum():
            return name
        own = self._place.shown.rstrip("/") + "/"
        if name.startswith(own):
            return posixpath.relpath(name.removeprefix(own), self.folder or ".")
        if scheme.lower() != "file":
            raise ValueError(f"{name} is an address; download the images first (img2dataset does), then name the files")
        return unquote(urlsplit(name).path)


def fold_name(name: str) -> str:
    """A name without the difference of case and of Unicode's forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def moved_note(moved: Iterable[Mapping[str, str]]) -> list[str]:
    """What a person should know of the paths in ``ImageNames.moved``: one line, or none."""
    if not (found := {name: file for one in moved for name, file in one.items()}):
        return []
    name, file = next(iter(found.items()))
    return [f"{len(found)} names are paths of another machine, and were found by their ends: {name} is {file}"]


def _spelled(path: str) -> str:
    """A path of another machine, which may not tell cases and slashes apart."""
    return fold_name(path.replace("\\", "/"))


def _fold(path: str) -> str:
    """A path without the differences that do not count: of ``fold_name``, and spaces around names and suffixes."""
    *folders, name = (part.strip() for part in fold_name(path).split("/"))
    stem, dot, suffix = name.rpartition(".")
    return "/".join([*folders, f"{stem.rstrip()}{dot}{suffix}"])


def _parts(name: str) -> list[str]:
    """The parts of a path without its drive, its root, ``.`` and what leads up at its start; nothing for ``a/../b``."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"/", "//", ".", "~"}]
    if parts and parts[0].endswith(":"):
        parts = parts[1:]
    ups = next((place for place, part in enumerate(parts) if part != ".."), len(parts))
    return [] if ".." in parts[ups:] else [".."] * bool(ups) + parts[ups:]
