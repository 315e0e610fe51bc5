"""Samples of several files: an image, and beside it captions and values under the same key.

The key of ``a/b.seg.png`` is ``a/b``: the folder, and the name up to its first dot; what follows is the suffix. This is
WebDataset's convention (https://github.com/webdataset/webdataset, "The WebDataset Format"). Captions are the lines of
``.txt`` and ``.caption``, and the keys of ``.json`` that name captions; the other keys of ``.json`` are metadata.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.column_names import Roles, folded, roles_of
from clip_retrieval.datasets.image_files import kind_of_file
from clip_retrieval.datasets.img2dataset_status import bookkeeping
from clip_retrieval.datasets.json_values import not_repeated, reason_of, values_in
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.samples import Sample, images_of
from clip_retrieval.datasets.shards import kind_of
from clip_retrieval.datasets.taking import Taking
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject, Split

_TEXTS = frozenset({"txt", "caption", "text"})
_NOT_IMAGES = frozenset({*_TEXTS, "json", "cls", "npy", "npz", "pth", "pt", "pyd", "pkl", "index", "md", "csv"})
TEXT_LIMIT = 1 << 20
"""Bytes of a file of captions or values that are read."""

Parts = dict[str, ImageBlob]
"""The files of one sample by their suffixes, in order."""


def group(files: Iterable[ImageBlob | Reject], groups: dict[str, Parts], tar: str = "") -> Iterator[Reject]:
    """Put ``files`` into ``groups`` by their keys, in the order in which the keys come first.

    Rejects are passed on. A file whose name came before is taken in place of that; the earlier one is a Reject. Files
    that are hidden in their ``tar`` are left out, as in a folder.
    """
    for file in files:
        if isinstance(file, Reject):
            yield file
            continue
        path = PurePosixPath(file.name)
        if any(part.startswith(".") for part in file.name.removeprefix(f"{tar}/").split("/")):
            continue
        stem, _, suffix = path.name.partition(".")
        parts = groups.setdefault((path.parent / stem).as_posix(), {})
        if suffix in parts:
            yield Reject(file.name, "another file of this name comes later, and is taken")
        parts[suffix] = file


@dataclass
class GroupReader:
    """Makes images of groups, and notes in ``taking`` what was used and what was not."""

    options: SourceOptions
    taking: Taking
    used: set[str] = field(default_factory=set)
    """The suffixes and the keys of JSON that images and captions came from."""

    def images(self, parts: Parts, split: Split | None) -> Iterator[CaptionedImage | Reject]:
        """The images of one group with its captions and values.

        A sample has one image: of several, the first whose suffix stands alone. Images with nothing beside them are no
        sample (``a.jpg`` and ``a.png`` in a tar of photographs), nor are files of which no suffix stands alone
        (``IMG.1.jpg``, ``IMG.2.jpg``): each is an image, with the files of its own stem, or those of no image's.
        """
        images = {suffix: blob for suffix, blob in parts.items() if self._is_image(suffix, blob)}
        others = {suffix: blob for suffix, blob in parts.items() if suffix not in images}
        plain = [suffix for suffix in images if "." not in suffix]
        if plain or any("." not in suffix for suffix in others):
            kept = (plain or list(images))[: 1 if others else None]
            self._unused([blob for suffix, blob in images.items() if suffix not in kept], "more images of a sample")
            images = {suffix: images[suffix] for suffix in kept}
        stems = {suffix.rpartition(".")[0] for suffix in images}
        shared = {suffix: blob for suffix, blob in others.items() if suffix.rpartition(".")[0] not in stems}
        for suffix, blob in images.items():
            stem = suffix.rpartition(".")[0]
            own = {name: other for name, other in others.items() if name.rpartition(".")[0] == stem}
            yield from self._image(suffix, blob, {**own, **shared} if len(images) == 1 else own or shared, split)
        if not images:
            self._unused(others.values())

    def check_names(self) -> None:
        """Raise SourceError if a person named a column that no sample had."""
        wanted = {*self.options.caption_columns, *([self.options.image_column] if self.options.image_column else [])}
        if missing := sorted(wanted - self.used):
            raise SourceError(
                f"no sample has {', '.join(map(repr, missing))}: name a suffix such as 'txt', or a key of the JSON"
                f" (used: {', '.join(map(repr, sorted(self.used))) or 'none'})"
            )

    def _is_image(self, suffix: str, blob: ImageBlob) -> bool:
        if self.options.image_column is not None:
            return suffix == self.options.image_column
        kind = suffix.rpartition(".")[2].lower()
        if f".{kind}" in IMAGE_SUFFIXES or kind in _NOT_IMAGES:
            return kind not in _NOT_IMAGES
        found = kind_of_file(blob)
        return found is not None and found.is_image

    def _image(
        self, suffix: str, blob: ImageBlob, others: Parts, split: Split | None
    ) -> Iterator[CaptionedImage | Reject]:
        self._use("image", suffix)
        captions: list[str] = []
        values: dict[str, object] = {}
        for name, other in others.items():
            kind = name.rpartition(".")[2].lower()
            if kind not in _TEXTS and kind != "json":
                self._unused([other])
                continue
            try:
                if kind == "json":
                    values = {**values_in(_text(other)), **values}
                elif self._wants(name):
                    captions += _lines(other)
                    self._use("caption", name)
            except (ImageRejected, ValueError, RecursionError) as error:
                yield Reject(other.name, reason_of(error))
        roles = self._roles(list(values))
        for name in roles.captions:
            self._use("caption", name)
        left_out = bookkeeping(values) - roles.used
        kept = {name: value for name, value in values.items() if name not in left_out}
        lines = tuple(not_repeated(captions, values, roles))
        yield from images_of(Sample(blob.name, blob, kept, roles, split, lines), self.taking)

    def _wants(self, name: str) -> bool:
        return not self.options.no_captions and (
            not self.options.caption_columns or name in self.options.caption_columns
        )

    def _roles(self, keys: list[str]) -> Roles:
        known = {folded(key) for key in keys}
        named = [name for name in self.options.caption_columns if folded(name) in known]
        roles = roles_of(keys, captions=named)
        unwanted = self.options.no_captions or (self.options.caption_columns and not named)
        self.used.update(named)
        return replace(roles, image=None, captions=() if unwanted else roles.captions)

    def _use(self, role: str, name: str) -> None:
        self.used.add(name)
        if name not in (names := self.taking.columns.setdefault(role, [])):
            names.append(name)

    def _unused(self, blobs: Iterable[ImageBlob], kind: str = "") -> None:
        self.taking.unused.update(kind or kind_of(blob.name) for blob in blobs)


def _lines(blob: ImageBlob) -> list[str]:
    text = _text(blob).removeprefix("\ufeff")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _text(blob: ImageBlob) -> str:
    data = blob.read(TEXT_LIMIT)
    if len(data) > TEXT_LIMIT:
        raise ValueError(f"over {TEXT_LIMIT >> 20} MiB of text")
    return data.decode()
