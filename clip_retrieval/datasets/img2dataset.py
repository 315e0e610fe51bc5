"""The outputs of img2dataset that are tars, or folders of files; beside each shard lies its ``_stats.json``.

Images that img2dataset could not get are no rejects, since they may be a third of all: they are counted by their
messages. The Parquet file beside a tar or a folder repeats what the shard itself has, and is not read.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.grouped import GroupReader, Parts, group
from clip_retrieval.datasets.img2dataset_status import STATS_SUFFIX, failures_in
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.shards import in_order, unused_files
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.tar_place import tar_names
from clip_retrieval.datasets.webdataset import WebDataset
from clip_retrieval.errors import ImageRejected
from clip_retrieval.records import CaptionedImage, Reject

_STATS_LIMIT = 1 << 22


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """Whether the place has tars or folders with a ``_stats.json`` each, or is such a tar.

    Parquet files with images are ``parquet.py``'s, which knows img2dataset's columns.
    """
    stems = [name.removesuffix(STATS_SUFFIX) for name in place.files if name.endswith(STATS_SUFFIX)]
    if place.only is not None:
        stems = [stem for stem in stems if stem == PurePosixPath(place.only).stem]
    tars = tar_names(place)
    if stems and tars:
        return Fit(Img2DatasetTars(place, tars, options, stems), f"tars with {STATS_SUFFIX} beside them")
    folders = {PurePosixPath(name).parent.as_posix() for name in place.files} & {*stems}
    if folders:
        return Fit(Img2DatasetFiles(place, in_order(folders), options), f"folders with {STATS_SUFFIX} beside them")
    return None


class Img2DatasetTars(WebDataset):
    """Tars, and the stems of those whose ``_stats.json`` lies beside them."""

    name = "img2dataset"
    takes_columns = True

    def __init__(self, place: Place, names: Sequence[str], options: SourceOptions, stems: Sequence[str]) -> None:
        super().__init__(place, names, options)
        self.stems = stems

    def read(self) -> Iterator[CaptionedImage | Reject]:
        yield from super().read()
        yield from _count_failures(self.place, self.stems, self.taking)

    def beside(self) -> set[str]:
        return {*self.names, *_companions(self.stems)}


class Img2DatasetFiles(Source):
    """Folders with ``KEY.jpg``, ``KEY.txt`` and ``KEY.json``, in this order."""

    name = "img2dataset"
    takes_columns = True

    def __init__(self, place: Place, folders: Sequence[str], options: SourceOptions) -> None:
        self.place = place
        self.folders = folders
        self.options = options

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking = Taking(self.name, self.taking.why)
        reader = GroupReader(self.options, taking)
        inside = defaultdict(list)
        for name in self.place.files:
            inside[PurePosixPath(name).parent.as_posix()].append(name)
        for folder in self.folders:
            groups: dict[str, Parts] = {}
            yield from group((self.place.files[name] for name in inside[folder]), groups)
            taking.files.append(TakenFile(folder))
            reader.groups = groups
            for parts in groups.values():
                yield from reader.images(parts, None)
        used = {name for folder in self.folders for name in inside[folder]}
        taking.unused.update(unused_files(self.place.files, used | {*_companions(self.folders)}))
        yield from _count_failures(self.place, self.folders, taking)
        reader.tell()


def _companions(stems: Sequence[str]) -> Iterator[str]:
    """What lies beside a shard and says the same once more."""
    for stem in stems:
        yield from (f"{stem}.parquet", f"{stem}{STATS_SUFFIX}")


def _count_failures(place: Place, stems: Sequence[str], taking: Taking) -> Iterator[Reject]:
    for stem in stems:
        name = f"{stem}{STATS_SUFFIX}"
        try:
            taking.unused.update(failures_in(place.files[name].read(_STATS_LIMIT)))
        except (ImageRejected, ValueError) as error:
            yield Reject(name, f"the counts of img2dataset cannot be read: {error}")
