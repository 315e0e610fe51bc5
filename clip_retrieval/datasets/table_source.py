"""A collection that files list: one table, one for each split, or one in each folder. The images may be in tars."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.column_names import folded
from clip_retrieval.datasets.list_file import AnotherKind, ListFile, NotAList, OtherAnnotations
from clip_retrieval.datasets.names import ImageNames, moved_note
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.row_numbers import number_column, without_ids
from clip_retrieval.datasets.rows import Find, Row, images_of_rows
from clip_retrieval.datasets.sidecar_files import Sidecars
from clip_retrieval.datasets.table_files import (
    FOLDERS,
    READERS,
    STEMS,
    is_metadata,
    looks_like_captions,
    may_be_a_table,
    split_of,
    stem_of,
    understood,
)
from clip_retrieval.datasets.tar_place import with_tars
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, Split

_TRIED_ROWS = 100
"""Rows that are looked at to see where the images of a table lie."""


@dataclass(frozen=True)
class Table:
    """A file that lists images, and the split of all its rows if its name says so."""

    file: ListFile
    split: Split | None = None

    @property
    def name(self) -> str:
        """The path of the file relative to the place."""
        return self.file.file.name


class TableSource(Source):
    """The images that one or several tables list. Image names are relative to the table, or to the folder."""

    def __init__(self, place: Place, tables: Sequence[Table], why: str, others: Sequence[str] = ()) -> None:
        """``others`` are tables that could have been taken too."""
        self._place = place
        self._others = others
        self._tables = tables
        self.takes_columns = any(table.file.layout in {"csv", "jsonl", "json"} for table in tables)
        self.name = tables[0].file.layout
        self.has_captions = any(table.file.has_captions for table in tables)
        self.taking.layout, self.taking.why = self.name, why

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking
        taking.files = [table.file.taken() for table in self._tables]
        taking.columns = dict(self._tables[0].file.columns)
        taking.fields, taking.notes = {}, []
        # Tables of one folder find images in the same way; rows about one image are merged whatever table has them.
        names = {folder: ImageNames(self._place, folder) for folder in map(_folder_of, self._tables)}
        numbers = number_column([(table.file, _folder_of(table)) for table in self._tables])
        if numbers is not None:
            taking.columns.pop("image_id", None)
            taking.notes.append(
                f"{numbers} has numbers that are no ids of images: it is a field, and images have their names as ids"
            )
        yield from images_of_rows(self._rows(names, numbers), taking)
        used = {table.name for table in self._tables}.union(*(one.used for one in names.values()))
        taking.notes += moved_note([one.moved for one in names.values()])
        taking.unused = count_unused(self._place, used, "images that no row names")
        taking.unused.update(f"other table, {name}" for name in self._others)

    def _rows(self, names: Mapping[str, ImageNames], numbers: str | None) -> Iterator[tuple[Row, Find] | Reject]:
        for table in self._tables:
            find = names[_folder_of(table)].find
            rows, empty = table.file.rows(), True
            for row in rows if numbers is None else without_ids(rows, numbers):
                empty = False
                if isinstance(row, Reject):
                    yield row
                elif row.split is None and table.split is not None:
                    yield replace(row, split=table.split), find
                else:
                    yield row, find
            if empty:
                head = f" the columns {', '.join(map(repr, table.file.names))} and" if table.file.names else ""
                self.taking.notes.append(f"{table.name} has{head} no row")


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """The tables of a folder, or the one table that a person named. Raises SourceError for several that contradict."""
    if place.only is not None:
        return _file_fits(place, place.only, options)
    # A file like a.json beside a.jpg tells of that image alone.
    beside = {name for name in Sidecars(place).json_files() if stem_of(name) not in STEMS}
    lists: list[Table] = []
    missed: list[Miss] = []
    for shown, stored in place.files.items():
        if shown in beside or not may_be_a_table(shown):
            continue
        try:
            file = understood(stored, options)
            if not file.has_captions and not _may_lack_captions(file, shown):
                raise NotAList(_no_captions(file))
        except NotAList as error:
            if isinstance(error, AnotherKind) or (
                not isinstance(error, OtherAnnotations) and looks_like_captions(shown, stored)
            ):
                missed.append(Miss(shown, str(error)))
        else:
            lists.append(Table(file, split_of(shown)))
    if not lists:
        return missed[0] if missed else None
    chosen = _chosen(place, lists)
    stems = {stem_of(table.name) for table in chosen}
    if twins := [miss.file for miss in missed if stem_of(miss.file) in stems]:
        raise _several(place, [*(table.name for table in chosen), *twins])
    if chosen[0].split is not None and (others := [miss for miss in missed if split_of(miss.file) is not None]):
        return others[0]
    why = f"{', '.join(table.name for table in chosen)} lists images" + (
        " with captions" if any(table.file.has_captions for table in chosen) else " without captions"
    )
    unchosen = [table.name for table in lists if table not in chosen]
    return _fit(place, chosen, why, unchosen)


def _file_fits(place: Place, name: str, options: SourceOptions) -> Fit | None:
    if PurePosixPath(name).suffix.lower() not in READERS:
        return None
    stored = place.files[name]
    try:
        file = understood(stored, options)
        above = place.above()
        if above is not None and folded(place.root.name) in FOLDERS and not _finds_images(file, place):
            # The images lie beside this folder, not in it.
            place, name = above, f"{place.root.name}/{name}"
            file = understood(stored.named(name), options)
    except NotAList as error:
        raise SourceError(f"{name} cannot be read as a list of images: {error}") from error
    if not file.has_captions and not options.no_captions and not _may_lack_captions(file, name):
        raise SourceError(f"{name} has {_no_captions(file)}; --no-captions takes the images alone")
    return _fit(place, [Table(file)], f"{name} lists images")


def _finds_images(file: ListFile, place: Place) -> bool:
    """Whether the first rows of a file name any image that is found from its own folder."""
    names = ImageNames(place)
    for row in islice(file.rows(), _TRIED_ROWS):
        if isinstance(row, Row) and isinstance(row.image, str):
            try:
                names.find(row.image)
            except ValueError:
                continue
            if names.is_here(row.image):
                return True
    return False


def _fit(place: Place, tables: Sequence[Table], why: str, others: Sequence[str] = ()) -> Fit:
    where = with_tars(place)
    why += "" if where is place else "; they are looked for in the tars beside it"
    return Fit(TableSource(where, tables, why, others), why)


def _chosen(place: Place, lists: Sequence[Table]) -> Sequence[Table]:
    """The tables that are read: those of the best name, or one for each split."""
    if len(lists) == 1:
        return lists
    for stem in STEMS:
        named = [table for table in lists if stem_of(table.name) == stem]
        named = [table for table in named if not table.name.endswith(".txt")] or named
        folders = {PurePosixPath(table.name).parent for table in named}
        if named and len(folders) == len(named):
            return named
        if named:
            break
    else:
        splits = [table.split for table in lists]
        if None not in splits and len({PurePosixPath(table.name).parent for table in lists}) == 1:
            return lists
    raise _several(place, [table.name for table in named or lists])


def _several(place: Place, shown: Sequence[str]) -> SourceError:
    return SourceError(f"{place.shown} has both {' and '.join(sorted(shown)[:3])}; keep one, or give that file")


def _folder_of(table: Table) -> str:
    return str(PurePosixPath(table.name).parent)


def _may_lack_captions(file: ListFile, shown: str) -> bool:
    """Whether a list without captions is one on purpose: JSON Lines, and the metadata that lies beside images."""
    return file.layout == "jsonl" or is_metadata(shown)


def _no_captions(file: ListFile) -> str:
    found = ", ".join(map(repr, file.names)) or "none"
    return (
        "no column for the caption: call it caption, text or title, or name it with --caption-column"
        f" (columns found: {found})"
    )
