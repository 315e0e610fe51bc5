"""A collection that files list: one table, one for each split, or one in each folder."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from clip_retrieval.datasets import csv_table, json_document, jsonl
from clip_retrieval.datasets.base import Source, parse_split
from clip_retrieval.datasets.column_names import folded
from clip_retrieval.datasets.list_file import ListFile, NotAList, OtherAnnotations
from clip_retrieval.datasets.names import ImageNames, moved_note
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.rows import Find, Row, images_of_rows
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import CaptionedImage, Reject, Split

READERS: Mapping[str, Callable[[StoredFile, SourceOptions], ListFile]] = {
    ".csv": csv_table.understand,
    ".tsv": csv_table.understand,
    ".tab": csv_table.understand,
    ".psv": csv_table.understand,
    ".txt": csv_table.understand,
    ".jsonl": jsonl.understand,
    ".ndjson": jsonl.understand,
    ".json": json_document.understand,
}
"""How a file is read, by its suffix."""
STEMS = ("captions", "metadata", "results", "annotations", "labels", "dataset", "data")
"""Names of tables, from the one that is taken first."""
HIDDEN_TABLE = "a table in a folder below; put it at the top, call it captions, or give the file"
FOLDERS = frozenset({"annotations", "captions", "labels", "data", "metadata"})
"""Folders that tables lie in, beside the images."""
MENTION = re.compile(rb"\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic)\b", re.IGNORECASE)
_SAMPLE_BYTES = 2**16


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
        taking.columns = self._tables[0].file.columns
        taking.fields, taking.notes = {}, []
        # Tables of one folder find images in the same way; rows about one image are merged whatever table has them.
        names = {folder: ImageNames(self._place, folder) for folder in map(_folder_of, self._tables)}
        yield from images_of_rows(self._rows(names), taking)
        used = {table.name for table in self._tables}.union(*(one.used for one in names.values()))
        taking.notes += moved_note([one.moved for one in names.values()])
        taking.unused = count_unused(self._place, used, "images that no row names")
        taking.unused.update(f"other table, {name}" for name in self._others)

    def _rows(self, names: Mapping[str, ImageNames]) -> Iterator[tuple[Row, Find] | Reject]:
        for table in self._tables:
            find = names[_folder_of(table)].find
            for row in table.file.rows():
                if isinstance(row, Reject):
                    yield row
                elif row.split is None and table.split is not None:
                    yield replace(row, split=table.split), find
                else:
                    yield row, find


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """The tables of a folder, or the one table that a person named. Raises SourceError for several that contradict."""
    if place.only is not None:
        return _file_fits(place, place.only, options)
    understood: list[Table] = []
    missed: list[Miss] = []
    for shown, stored in place.files.items():
        if not may_be_a_table(shown):
            continue
        try:
            file = READERS[PurePosixPath(shown).suffix.lower()](stored, options)
            if not file.has_captions and not _may_lack_captions(file, shown):
                raise NotAList(_no_captions(file))
        except NotAList as error:
            if not isinstance(error, OtherAnnotations) and _looks_like_captions(shown, stored):
                missed.append(Miss(shown, str(error)))
        else:
            understood.append(Table(file, _split_of(shown)))
    if not understood:
        return missed[0] if missed else None
    chosen = _chosen(place, understood)
    stems = {_stem(table.name) for table in chosen}
    if twins := [miss.file for miss in missed if _stem(miss.file) in stems]:
        raise _several(place, [*(table.name for table in chosen), *twins])
    if chosen[0].split is not None and (others := [miss for miss in missed if _split_of(miss.file) is not None]):
        return others[0]
    why = f"{', '.join(table.name for table in chosen)} lists images" + (
        " with captions" if any(table.file.has_captions for table in chosen) else " without captions"
    )
    unchosen = [table.name for table in understood if table not in chosen]
    return Fit(TableSource(place, chosen, why, unchosen), why)


def _file_fits(place: Place, name: str, options: SourceOptions) -> Fit | None:
    reader = READERS.get(PurePosixPath(name).suffix.lower())
    if reader is None:
        return None
    above = place.above()
    if above is not None and folded(place.root.name) in FOLDERS:  # the images lie beside this folder, not in it
        place, name = above, f"{place.root.name}/{name}"
    try:
        file = reader(place.files[name], options)
    except NotAList as error:
        raise SourceError(f"{name} cannot be read as a list of images: {error}") from error
    if not file.has_captions and not options.no_captions and not _may_lack_captions(file, name):
        raise SourceError(f"{name} has {_no_captions(file)}; --no-captions takes the images alone")
    why = f"{name} lists images"
    return Fit(TableSource(place, [Table(file)], why), why)


def _chosen(place: Place, understood: Sequence[Table]) -> Sequence[Table]:
    """The tables that are read: those of the best name, or one for each split."""
    if len(understood) == 1:
        return understood
    for stem in STEMS:
        named = [table for table in understood if _stem(table.name) == stem]
        named = [table for table in named if not table.name.endswith(".txt")] or named
        folders = {PurePosixPath(table.name).parent for table in named}
        if named and len(folders) == len(named):
            return named
        if named:
            break
    else:
        splits = [table.split for table in understood]
        if None not in splits and len({PurePosixPath(table.name).parent for table in understood}) == 1:
            return understood
    raise _several(place, [table.name for table in named or understood])


def _several(place: Place, shown: Sequence[str]) -> SourceError:
    return SourceError(f"{place.shown} has both {' and '.join(sorted(shown)[:3])}; keep one, or give that file")


def _stem(shown: str) -> str:
    return folded(PurePosixPath(shown).stem)


def may_be_a_table(shown: str) -> bool:
    """Whether a file lies and is called as tables are: at the top, in a folder of annotations, or with a known name."""
    path = PurePosixPath(shown)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        return False
    anywhere = _is_metadata(shown) or (_stem(shown) == "captions" and suffix != ".txt")
    if not anywhere and (len(path.parts) > 2 or (len(path.parts) == 2 and folded(path.parts[0]) not in FOLDERS)):
        return False
    return suffix != ".txt" or folded(path.stem) in STEMS or _split_of(shown) is not None


def may_be_hidden_table(shown: str, file: StoredFile) -> bool:
    """Whether a file that lies too deep to be taken as a table looks like one."""
    suffix = PurePosixPath(shown).suffix.lower()
    return (
        suffix in READERS.keys() - {".txt", ".json"} and not may_be_a_table(shown) and _looks_like_captions(shown, file)
    )


def _is_metadata(shown: str) -> bool:
    """Whether this is the file that Hugging Face reads beside images, in any folder."""
    return _stem(shown) == "metadata" and not shown.lower().endswith(".txt")


def _may_lack_captions(file: ListFile, shown: str) -> bool:
    """Whether a list without captions is one on purpose: JSON Lines, and the metadata that lies beside images."""
    return file.layout == "jsonl" or _is_metadata(shown)


def _looks_like_captions(shown: str, file: StoredFile) -> bool:
    if any(word in _stem(shown) for word in ("caption", "label", "annotation", "metadata")):
        return True
    try:
        return MENTION.search(file.read(_SAMPLE_BYTES).replace(b"\0", b"")) is not None
    except ImageRejected:
        return False


def _split_of(shown: str) -> Split | None:
    """The split that the name of a table says: ``train.csv``, ``captions_val2017.json``, ``test/metadata.jsonl``."""
    path = PurePosixPath(shown)
    words = [folded(path.stem).rsplit("_", 1)[-1]]
    if len(path.parts) > 1:
        words.append(folded(path.parts[-2]))
    for word in words:
        try:
            return parse_split(word)
        except ValueError:
            continue
    return None


def _folder_of(table: Table) -> str:
    return str(PurePosixPath(table.name).parent)


def _no_captions(file: ListFile) -> str:
    found = ", ".join(map(repr, file.names)) or "none"
    return (
        "no column for the caption: call it caption, text or title, or name it with --caption-column"
        f" (columns found: {found})"
    )
