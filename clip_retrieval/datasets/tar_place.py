"""The files in the tars of a place, as a place: what reads a folder reads a tar, which is never unpacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.image_files import count_images
from clip_retrieval.datasets.place import Place
from clip_retrieval.datasets.shards import in_order
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.tar_file import files_in
from clip_retrieval.errors import SourceError, StoreUnreachable
from clip_retrieval.records import Reject


def tar_names(place: Place) -> list[str]:
    """The tars of a place in order."""
    return _tars(place.files if place.only is None else [place.only])


def hold_more_images(place: Place, tars: Sequence[str], count: int) -> bool:
    """Whether these tars hold more than ``count`` files that are called as images are; damaged tars count as empty.

    Reads no further than to the first file that decides.
    """
    for tar in tars:
        try:
            for member in files_in(place.files[tar]):
                count -= not isinstance(member, Reject) and PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES
                if count < 0:
                    return True
        except StoreUnreachable:
            raise
        except SourceError:
            continue
    return False


def with_tars(place: Place) -> Place:
    """The place with the files in its tars, if it has tars and no images beside them; else the place itself.

    So a table finds images in tars beside it. What of the tars is damaged is a reject of ``place``.
    """
    tars = _tars(place.files)
    if not tars or count_images(place):
        return place
    opened = TarPlace.of(place, tars, is_beside=True)
    place.rejects.extend(opened.contents.rejects)
    return opened


def _tars(names: Sequence[str] | Mapping[str, StoredFile]) -> list[str]:
    return in_order(name for name in names if PurePosixPath(name).suffix.lower() == ".tar")


@dataclass(frozen=True)
class TarContents:
    """What lies in the ``tars`` of a place; their headers are read once."""

    place: Place
    tars: Sequence[str]

    @property
    def files(self) -> Mapping[str, StoredFile]:
        """Every file that is not hidden, by a path that begins with the name of its tar."""
        return self._read[0]

    @property
    def rejects(self) -> Sequence[Reject]:
        """What is damaged."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[dict[str, StoredFile], list[Reject]]:
        found: dict[str, StoredFile] = {}
        rejects: list[Reject] = []
        for tar in self.tars:
            try:
                for member in files_in(self.place.files[tar]):
                    if isinstance(member, Reject):
                        rejects.append(member)
                        continue
                    parts = PurePosixPath(member.name.removeprefix(f"{tar}/")).parts
                    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                        continue
                    name = "/".join([tar, *parts])
                    if name in found:
                        rejects.append(Reject(name, "another file of this name comes later, and is taken"))
                    found[name] = member
            except StoreUnreachable:
                raise
            except SourceError as error:
                rejects.append(Reject(tar, str(error), may_hide=True))
        return found, rejects


@dataclass(frozen=True)
class TarPlace(Place):
    """What lies in tars of ``outer``, and beside them if ``outer`` is a folder.

    The files of a tar lie in a folder of its name. Those of an only tar lie at the top, unless a file beside it has the
    name of one, or ``is_beside``: then the table that names images lies beside the tars, not in them.
    """

    outer: Place = field(kw_only=True)
    contents: TarContents = field(kw_only=True)
    is_beside: bool = field(default=False, kw_only=True)
    top: str = field(default="", kw_only=True)
    """The folder in the only tar that counts as its top, with a slash behind it."""

    @classmethod
    def of(cls, outer: Place, tars: Sequence[str], *, is_beside: bool = False) -> "TarPlace":
        return cls(outer.path, outer=outer, contents=TarContents(outer, tars), is_beside=is_beside)

    @property
    def tars(self) -> Sequence[str]:
        return self.contents.tars

    @property
    def root(self) -> Path:
        return self.outer.root

    @property
    def shown(self) -> str:
        return self.outer.shown

    @property
    def only(self) -> None:
        return None

    @cached_property
    def files(self) -> Mapping[str, StoredFile]:
        """Every file that is not hidden, by its name, folder by folder in order."""
        found = {**self._beside, **self._inside}
        return {name: found[name] for name in sorted(found, key=lambda name: name.split("/"))}

    def elsewhere(self, folder: str, name: str) -> StoredFile:
        """A file that is not among the files: a table in a tar names none of this machine."""
        if self.is_beside:
            return self.outer.elsewhere(folder, name)
        raise ValueError(f"{name} is not in the archive")

    def above(self) -> None:
        return None

    def unpacked(self) -> "TarPlace | None":
        """The same with the one folder that everything in the only tar lies in as its top."""
        top = None if self.is_beside or not self._is_bare else self.only_folder(self._inside)
        return None if top is None else replace(self, rejects=[], top=f"{self.top}{top}/")

    @cached_property
    def _beside(self) -> Mapping[str, StoredFile]:
        files = self.outer.files if self.outer.only is None or self.is_beside else {}
        return {name: file for name, file in files.items() if name not in self.tars}

    @cached_property
    def _is_bare(self) -> bool:
        """Whether the files of the only tar lie at the top."""
        if len(self.tars) != 1 or self.is_beside:
            return False
        prefix = f"{self.tars[0]}/{self.top}"
        return not any(name.removeprefix(prefix) in self._beside for name in self.contents.files)

    @cached_property
    def _inside(self) -> Mapping[str, StoredFile]:
        prefix = f"{self.tars[0]}/{self.top}" if self._is_bare else ""
        bare = {name.removeprefix(prefix): file for name, file in self.contents.files.items()}
        return {name: file.named(name) for name, file in bare.items()}
