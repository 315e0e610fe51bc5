"""Tars of images, as WebDataset has them: one, or a folder of shards that are read in order.

A tar is never unpacked: an image is a part of its file. ``grouped.py`` says which files of a tar make one image. A
tar that is compressed cannot be read at any place; it is refused with the tool that unpacks it.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.grouped import GroupReader, Parts, group
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.shards import in_order, split_of_name, unused_files
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.tar_file import files_in
from clip_retrieval.errors import SourceError, StoreUnreachable
from clip_retrieval.records import CaptionedImage, Reject

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """Whether the place is a tar, or has tars."""
    if not (names := tar_names(place)):
        candidates = place.files if place.only is None else [place.only]
        packed = next((name for name in candidates if name.lower().endswith(_COMPRESSED)), None)
        if packed is None:
            return None
        return Miss(packed, "a compressed tar, whose images cannot be read one by one; unpack it to a plain .tar first")
    why = "a tar" if len(names) == 1 else f"{len(names)} tars, read in order"
    return Fit(WebDataset(place, names, options), why)


def tar_names(place: Place) -> list[str]:
    """The tars of a place in order."""
    names = place.files if place.only is None else [place.only]
    return in_order(name for name in names if PurePosixPath(name).suffix.lower() == ".tar")


class WebDataset(Source):
    """The tars ``names`` of a place, in this order."""

    name = "webdataset"
    takes_columns = True

    def __init__(self, place: Place, names: Sequence[str], options: SourceOptions) -> None:
        self.place = place
        self.names = names
        self.options = options

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking = Taking(self.name, self.taking.why)
        reader = GroupReader(self.options, taking)
        for name in self.names:
            groups: dict[str, Parts] = {}
            try:
                yield from group(files_in(self.place.files[name]), groups)
            except SourceError as error:
                if len(self.names) == 1 or isinstance(error, StoreUnreachable):
                    raise
                yield Reject(name, str(error))
            if groups:
                taking.files.append(TakenFile(name))
            for parts in groups.values():
                yield from reader.images(parts, split_of_name(name))
        if self.place.only is None:
            taking.unused.update(unused_files(self.place.files, self.beside()))
        reader.check_names()

    def beside(self) -> set[str]:
        """The files of the place that are used, or that belong to a used one."""
        return {*self.names}
