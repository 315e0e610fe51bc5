"""Samples of several files: an image, and beside it captions and values under the same key.

The key of ``a/b.seg.png`` is ``a/b``: the folder, and the name up to its first dot; what follows is the suffix. This is
WebDataset's convention (https://github.com/webdataset/webdataset, "The WebDataset Format"). Captions are the lines of
``.txt`` and ``.caption``, and the keys of ``.json`` that name captions; the other keys of ``.json`` are metadata.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import Roles, folded, roles_of
from clip_retrieval.datasets.image_files import kind_of_file
from clip_retrieval.datasets.img2dataset_status import bookkeeping
from clip_retrieval.datasets.json_values import not_repeated, reason_of, values_of
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.samples import Sample, images_of
from clip_retrieval.datasets.shards import kind_of
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.text_file import UTF8, HeldText, NotText, captions_in, code_page_over, encoding_of
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject, Split

_TEXTS = frozenset({"txt", "caption", "text"})
_NOT_IMAGES = frozenset({*_TEXTS, "json", "cls", "npy", "npz", "pth", "pt", "pyd", "pkl", "index", "md", "csv"})
TEXT_LIMIT = 1 << 20
"""Bytes of a file of captions or values that are read."""
_CODE_PAGE_FILES = 1000
"""Files whose code page is found together; each is a read of a store."""

Parts = dict[str, StoredFile]
"""The files of one sample by their suffixes, in order."""


def group(files: Iterable[StoredFile | Reject], groups: dict[str, Parts], tar: str = "") -> Iterator[Reject]:
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
    groups: Mapping[str, Parts] = field(default_factory=dict)
    """All groups of the shard that is read: their texts have one code page if they are not Unicode."""
    read: Counter[Encoding] = field(default_factory=Counter)
    """How many files of captions and values were read, by their encoding."""
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

    def tell(self) -> None:
        """Put into ``taking`` what was read in an encoding of its own.

        Raises SourceError if a person named a column that no sample had.
        """
        self.taking.files += [
            TakenFile(f"{count} texts", encoding.name, guessed=not encoding.sure)
            for encoding, count in self.read.items()
            if encoding != Encoding(UTF8)
        ]
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
                    encoding, found = values_of(other, TEXT_LIMIT, self.options.encoding)
                    values = {**found, **values}
                elif self._wants(name):
                    held = HeldText.of(other, TEXT_LIMIT)
                    encoding = encoding_of(held, self.options.encoding, lambda _: self._code_page)
                    for line in captions_in(held, encoding.name):
                        if isinstance(line, Reject):
                            yield line
                        else:
                            captions.append(line)
                    self._use("caption", name)
                else:
                    continue
                self.read[encoding] += 1
            except (ImageRejected, NotText, ValueError, RecursionError) as error:
                yield Reject(other.name, reason_of(error), may_hide=True)
        roles = self._roles(list(values))
        for name in roles.captions:
            self._use("caption", name)
        left_out = bookkeeping(values) - roles.used
        kept = {name: value for name, value in values.items() if name not in left_out}
        lines = tuple(not_repeated(captions, values, roles))
        yield from images_of(Sample(blob.name, blob, kept, roles, split, lines), self.taking)

    @cached_property
    def _code_page(self) -> Encoding:
        names = ((name, file) for parts in self.groups.values() for name, file in parts.items())
        texts = (file for name, file in names if name.rpartition(".")[2].lower() in _TEXTS)
        return code_page_over(islice(texts, _CODE_PAGE_FILES))

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
