"""The file that a table means by a name.

People write names as their own machine shows them: with backslashes, in another Unicode form, in another case, without
the suffix, percent-encoded, relative to a folder of images below the table, or as a path of another machine. A name
that is a path of the source or of this machine is taken as it is. Otherwise it means the one file that fits.
"""

import os
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping
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
        self._folder = "" if folder == "." else folder
        self._found: dict[str, StoredFile] = {}
        self.used: set[str] = set()
        """The files of the place that names led to."""

    def find(self, name: str) -> StoredFile:
        """The file that ``name`` means, under its name in Unicode's form NFC. It need not exist on this machine.

        Raises ValueError with the reason if the name is no file name, means more than one file, or no file of a store.
        """
        if (known := self._found.get(name)) is not None:  # tables have a row for each caption
            return known
        spelled = self._without_address(name.strip())
        if not spelled or "\0" in spelled:
            raise ValueError("the row names no image")
        shown = next(self._names(spelled), None)
        if shown is None:
            found = self._place.elsewhere(self._folder, spelled.replace("\\", "/"))
        else:
            self.used.add(shown)
            found = self._place.files[shown]
        self._found[name] = found = found.named(unicodedata.normalize("NFC", found.name))
        return found

    def _names(self, name: str) -> Iterator[str]:
        """The names among the files of the place that ``name`` may mean, from the surest."""
        spellings = dict.fromkeys((name, name.replace("\\", "/")))  # a backslash may be part of a name
        for spelling in spellings:
            for relative in (posixpath.join(self._folder, spelling), spelling):
                if (normal := posixpath.normpath(relative)) in self._place.files:
                    yield normal
        if self._is_elsewhere(name):
            return
        for spelling in dict.fromkeys((name, unquote(name))):
            if (shown := self._below(spelling)) is not None:
                yield shown

    def _is_elsewhere(self, name: str) -> bool:
        """Whether the name is a path of this machine that is not among the files of the place, but exists."""
        try:
            path = self._place.elsewhere(self._folder, name.replace("\\", "/")).path
        except ValueError:
            return False
        return isinstance(path, Path) and os.path.lexists(path)

    def _below(self, name: str) -> str | None:
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

    def _one_of(self, tail: str, known: Mapping[str, list[tuple[str, str]]]) -> str | None:
        """The one file whose path ends with ``tail``, in the same case if there are several."""
        folded = fold_name(tail)
        fits = [shown for key, shown in known.get(folded.rsplit("/", 1)[-1], ()) if f"/{key}".endswith(f"/{folded}")]
        fits = [shown for shown in fits if f"/{tail}" in f"/{self._base_name}/{shown}"] or fits
        if len(fits) > 1:
            names = ", ".join(fits[:_SHOWN])
            raise ValueError(f"{tail!r} means {len(fits)} files ({names}); write the path of one of them")
        return fits[0] if fits else None

    @property
    def _base_name(self) -> str:
        return PurePosixPath(self._place.root.as_posix()).name

    @cached_property
    def _by_name(self) -> Mapping[str, list[tuple[str, str]]]:
        """Every file by its folded name, with its folded path. The name of the root counts as a folder too."""
        found: dict[str, list[tuple[str, str]]] = {}
        for shown in self._place.files:
            folded = fold_name(f"{self._base_name}/{shown}")
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
            return posixpath.relpath(name.removeprefix(own), self._folder or ".")
        if scheme.lower() != "file":
            raise ValueError(f"{name} is an address; download the images first (img2dataset does), then name the files")
        return unquote(urlsplit(name).path)


def fold_name(name: str) -> str:
    """A name without the difference of case and of Unicode's forms."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _parts(name: str) -> list[str]:
    """The parts of a path without its drive, its root and ``.``; nothing for a path that leads up."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"/", "."}]
    if ".." in parts:
        return []
    return parts[1:] if parts and parts[0].endswith(":") else parts
