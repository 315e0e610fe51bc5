"""Which files of text and of JSON belong to which image: by their names, and by the folders they lie in.

Text for ``cat.jpg`` is in ``cat.txt``, ``cat.jpg.txt``, ``cat.caption`` and the like, in any case. JSON is in:

    cat.json, cat.jpg.json                 img2dataset, gallery-dl and other tools
    cat.info.json                          yt-dlp, beside the thumbnail
    cat.jpg.supplemental-metadata.json     Google Takeout, which cuts off what is behind 46 characters
    cat.jpg(1).json                        Google Takeout's of cat(1).jpg
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from posixpath import basename, dirname, join, split, splitext

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.names import fold_name
from clip_retrieval.datasets.place import Place
from clip_retrieval.datasets.stored import StoredFile

TEXT_SUFFIXES = frozenset({".txt", ".caption", ".captions", ".cap"})
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpeg", "png", "raw"})
TEXT_FOLDERS = ("captions", "caption", "text", "texts", "txt")
JSON_FOLDERS = ("captions", "json", "metadata", "meta", "annotations", "labels")
_MAY_BE_IMAGES = frozenset({"", *IMAGE_SUFFIXES})
_TAKEOUT_ENDING = "supplemental-metadata"
_TAKEOUT_CHARACTERS = 46
_COUNTER = re.compile(r"(.*\.[^.()]*)(\(\d+\))")

Named = dict[str, list[tuple[str, StoredFile]]]
"""Files, each with its folder, by the folded name of an image with or without suffix."""


class Sidecars:
    """The files of text and of JSON below a place, by the images that they belong to."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def texts_of(self, image: str) -> list[StoredFile]:
        """The text files of an image, all of one folder: the first of ``_folders`` that has any."""
        return self._of(image, self._texts, TEXT_FOLDERS) if self._texts else []

    def json_of(self, image: str) -> list[StoredFile]:
        """The JSON files of an image, all of one folder: the first of ``_folders`` that has any."""
        return self._of(image, self._jsons, JSON_FOLDERS) if self._jsons else []

    def json_files(self) -> frozenset[str]:
        """Every JSON file that belongs to a file which is an image by its name, or may be one."""
        if not self._jsons:
            return frozenset()
        names = (name for name in self._place.files if splitext(name)[1].lower() in _MAY_BE_IMAGES)
        return frozenset(file.name for name in names for file in self.json_of(name))

    @property
    def has_json(self) -> bool:
        """Whether the place has JSON files that may belong to images."""
        return bool(self._jsons)

    @cached_property
    def _texts(self) -> Named:
        return self._named(TEXT_SUFFIXES, lambda stem: {stem})

    @cached_property
    def _jsons(self) -> Named:
        return self._named({".json"}, _json_keys)

    def _named(self, suffixes: Collection[str], keys: Callable[[str], Collection[str]]) -> Named:
        named: Named = {}
        for shown, file in self._place.files.items():
            stem, suffix = splitext(shown)
            if suffix.lower() in suffixes:
                folder, name = split(fold_name(stem))
                for key in keys(name):
                    named.setdefault(key, []).append((folder, file))
        return named

    @staticmethod
    def _of(image: str, named: Named, below: Sequence[str]) -> list[StoredFile]:
        folder, name = split(fold_name(image))
        found = [pair for key in dict.fromkeys((splitext(name)[0], name)) for pair in named.get(key, ())]
        if not found and len(name) > _TAKEOUT_CHARACTERS and below is JSON_FOLDERS:
            found = named.get(name[:_TAKEOUT_CHARACTERS], [])
        if found:
            for other in _folders(folder, below):
                if here := [file for parent, file in found if parent == other]:
                    return here
        return []


def _folders(folder: str, below: Sequence[str]) -> Iterator[str]:
    """The folders that may have the files of an image in ``folder``, a folded relative path.

    The folder itself; ``captions/`` in it; the same path below ``captions/``, with and without the top folder;
    ``captions/`` beside the folder, if that is called as folders of images are.
    """
    yield folder
    yield from (join(folder, name) for name in below)
    yield from (join(name, folder).rstrip("/") for name in below)
    _, _, rest = folder.partition("/")
    if rest:
        yield from (join(name, rest) for name in below)
    if basename(folder) in IMAGE_FOLDERS:
        yield from (join(dirname(folder), name) for name in below)


def _json_keys(stem: str) -> Collection[str]:
    """The folded names of images that a JSON file of this folded name may belong to."""
    keys = {stem, stem.removesuffix(".info")}
    plain, counter = stem, ""
    if match := _COUNTER.fullmatch(stem):  # cat.jpg(1) is that of cat(1).jpg
        plain, counter = match[1], match[2]
    image, _, ending = plain.rpartition(".")
    if _TAKEOUT_ENDING.startswith(ending) and splitext(image)[1] in IMAGE_SUFFIXES:
        plain = image
    if plain != stem:
        name, suffix = splitext(plain)
        keys.add(f"{name}{counter}{suffix}")
    return keys
