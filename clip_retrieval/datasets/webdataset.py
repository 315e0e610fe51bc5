"""Tars of images, as WebDataset has them: one, or a folder of shards that are read in order.

Tars beside images are the collection if they hold more images than that, or as many with captions; else they are left
out.

A tar is never unpacked: an image is a part of its file. ``grouped.py`` says which files of a tar make one image. A
tar that is compressed cannot be read at any place; it is refused with the tool that unpacks it.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.grouped import GroupReader, Parts, group
from clip_retrieval.datasets.image_files import count_images
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.shards import said_beside, split_of_name, unused_files
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.tar_file import files_in
from clip_retrieval.datasets.tar_place import hold_more_images, tar_names
from clip_retrieval.errors import SourceError, StoreUnreachable
from clip_retrieval.records import CaptionedImage, Reject

_BEGINNING = 64
"""Files of a tar that are looked at first, to see whether images have captions."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """Whether the place is a tar, or has tars."""
    names, packed = tar_names(place), compressed_tars(place)
    beside = count_images(place) if place.only is None else 0
    if not names and packed and not beside:
        return Miss(
            packed[0], "a compressed tar, whose images cannot be read one by one; unpack it to a plain .tar first"
        )
    if not names or (beside and not hold_more_images(place, names, beside - 1)):
        return None
    source = WebDataset(place, names, options)
    source.has_captions = not options.no_captions and source.finds_captions()
    if beside and not source.has_captions and not hold_more_images(place, names, beside):
        return None
    why = "a tar" if len(names) == 1 else f"{len(names)} tars, read in order"
    return Fit(source, why + said_beside(beside, has_captions=source.has_captions))


def compressed_tars(place: Place) -> list[str]:
    """The compressed tars of a place."""
    return [name for name in place.files if place.only in {None, name} and name.lower().endswith(_COMPRESSED)]


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
        yield from self._samples(reader, self.names)
        if self.place.only is None:
            taking.unused.update(unused_files(self.place.files, self.beside()))
        reader.tell()

    def finds_captions(self) -> bool:
        """Whether an image has captions under its own key; reads as far as to the first that has.

        The beginning of the first tar is tried alone, since a store is slow to read.
        """
        reader = GroupReader(self.options, Taking(self.name, ""))
        items = chain(self._samples(reader, self.names[:1], _BEGINNING), self._samples(reader, self.names))
        return any(isinstance(item, CaptionedImage) and item.captions for item in items)

    def _samples(
        self, reader: GroupReader, names: Sequence[str], members: int | None = None
    ) -> Iterator[CaptionedImage | Reject]:
        """The images of the tars ``names``, of the first ``members`` files of each."""
        for name in names:
            groups: dict[str, Parts] = {}
            try:
                yield from group(islice(files_in(self.place.files[name]), members), groups, name)
            except SourceError as error:
                if len(self.names) == 1 or isinstance(error, StoreUnreachable):
                    raise
                yield Reject(name, str(error), may_hide=True)
            if groups:
                reader.taking.files.append(TakenFile(name))
            reader.groups = groups
            for parts in groups.values():
                yield from reader.images(parts, split_of_name(name))

    def beside(self) -> set[str]:
        """The files of the place that are used, or that belong to a used one."""
        return {*self.names}
