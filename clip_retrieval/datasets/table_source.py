"""A collection that files list: one table, one for each split, or one in each folder."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clip_retrieval.datasets import csv_table, json_document, jsonl
from clip_retrieval.datasets.base import FolderSource, parse_split
from clip_retrieval.datasets.column_names import folded
from clip_retrieval.datasets.list_file import ListFile, NotAList
from clip_retrieval.datasets.names import ImageNames
from clip_retrieval.datasets.place import Fit, Miss, Place, SourceOptions
from clip_retrieval.datasets.rows import Row, images_of_rows
from clip_retrieval.datasets.unused import count_unused
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, Split

READERS: Mapping[str, Callable[[Path, SourceOptions], ListFile]] = {
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
FOLDERS = frozenset({"annotations", "captions", "labels", "data", "metadata"})
"""Folders that tables lie in, beside the images."""
MENTION = re.compile(rb"\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic)\b", re.IGNORECASE)
_SAMPLE_BYTES = 2**16


@dataclass(frozen=True)
class Table:
    """A file that lists images, its name for people, and the split of all its rows if its name says so."""

    file: ListFile
    shown: str
    split: Split | None = None


class TableSource(FolderSource):
    """The images that one or several tables list. Image names are relative to the table, or to the folder."""

    def __init__(self, place: Place, tables: Sequence[Table], why: str) -> None:
        super().__init__(_base_folder(place, tables))
        self._place = Place(self.root)
        self._tables = tables
        self.name = tables[0].file.layout
        self.has_captions = any(table.file.has_captions for table in tables)
        self.taking.layout, self.taking.why = self.name, why

    def read(self) -> Iterator[CaptionedImage | Reject]:
        taking = self.taking
        taking.files = [table.file.taken(table.shown) for table in self._tables]
        taking.columns = self._tables[0].file.columns
        taking.fields = {}
        used: set[Path] = {table.file.path for table in self._tables}
        for tables in self._groups():
            names = ImageNames(self.root, tables[0].file.path.parent, lambda: self._place.files)
            yield from images_of_rows(self._rows(tables), names.find, taking)
            used |= names.used
        taking.unused = count_unused(self._place, used, "images that no row names")

    def _groups(self) -> list[list[Table]]:
        """Tables of one folder are read together, so that rows about one image are merged."""
        groups: dict[Path, list[Table]] = {}
        for table in self._tables:
            groups.setdefault(table.file.path.parent, []).append(table)
        return list(groups.values())

    def _rows(self, tables: Sequence[Table]) -> Iterator[Row | Reject]:
        for table in tables:
            for row in table.file.rows(table.shown):
                if isinstance(row, Row) and row.split is None and table.split is not None:
                    yield _with_split(row, table.split)
                else:
                    yield row


def fits(place: Place, options: SourceOptions) -> Fit | Miss | None:
    """The tables of a folder, or the one table that a person named. Raises SourceError for several that contradict."""
    if place.path.is_file():
        return _file_fits(place, options)
    understood: list[Table] = []
    missed: list[Miss] = []
    for shown, path in place.files.items():
        if not _may_be_a_table(shown):
            continue
        try:
            file = READERS[path.suffix.lower()](path, options)
            if not file.has_captions and not _may_lack_captions(file, shown):
                raise NotAList(_no_captions(file))
        except NotAList as error:
            if _looks_like_captions(shown, path):
                missed.append(Miss(shown, str(error)))
        else:
            understood.append(Table(file, shown, _split_of(shown)))
    if not understood:
        return missed[0] if missed else None
    chosen = _chosen(place, understood)
    stems = {_stem(table.shown) for table in chosen}
    if twins := [miss.file for miss in missed if _stem(miss.file) in stems]:
        raise _several(place, [*(table.shown for table in chosen), *twins])
    why = f"{', '.join(table.shown for table in chosen)} lists images" + (
        " with captions" if any(table.file.has_captions for table in chosen) else " without captions"
    )
    return Fit(TableSource(place, chosen, why), why)


def _file_fits(place: Place, options: SourceOptions) -> Fit:
    reader = READERS.get(place.path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise SourceError(
            f"{place.path} is not a table that can be read ({known}); give one, or a folder of images,"
            " and unpack an archive first"
        )
    try:
        file = reader(place.path, options)
    except NotAList as error:
        raise SourceError(f"{place.path.name} cannot be read as a list of images: {error}") from error
    if not file.has_captions and not options.no_captions and not _may_lack_captions(file, place.path.name):
        raise SourceError(f"{place.path.name} has {_no_captions(file)}; --no-captions takes the images alone")
    why = f"{place.path.name} lists images"
    return Fit(TableSource(place, [Table(file, place.path.name)], why), why)


def _chosen(place: Place, understood: Sequence[Table]) -> Sequence[Table]:
    """The tables that are read: those of the best name, or one for each split."""
    if len(understood) == 1:
        return understood
    for stem in STEMS:
        named = [table for table in understood if _stem(table.shown) == stem]
        named = [table for table in named if not table.shown.endswith(".txt")] or named
        folders = {PurePosixPath(table.shown).parent for table in named}
        if named and len(folders) == len(named):
            return named
        if named:
            break
    else:
        splits = [table.split for table in understood]
        if None not in splits and len({PurePosixPath(table.shown).parent for table in understood}) == 1:
            return understood
    raise _several(place, [table.shown for table in named or understood])


def _several(place: Place, shown: Sequence[str]) -> SourceError:
    return SourceError(f"{place.path} has both {' and '.join(sorted(shown)[:3])}; keep one, or give that file")


def _stem(shown: str) -> str:
    return folded(PurePosixPath(shown).stem)


def _may_be_a_table(shown: str) -> bool:
    """Whether a file lies and is called as tables are: at the top, in a folder of annotations, or metadata anywhere."""
    path = PurePosixPath(shown)
    suffix = path.suffix.lower()
    if suffix not in READERS or (len(path.parts) > 2 and not _is_metadata(shown)):
        return False
    if len(path.parts) == 2 and folded(path.parts[0]) not in FOLDERS and not _is_metadata(shown):
        return False
    return suffix != ".txt" or folded(path.stem) in STEMS or _split_of(shown) is not None


def _is_metadata(shown: str) -> bool:
    """Whether this is the file that Hugging Face reads beside images, in any folder."""
    return _stem(shown) == "metadata" and not shown.lower().endswith(".txt")


def _may_lack_captions(file: ListFile, shown: str) -> bool:
    """Whether a list without captions is one on purpose: JSON Lines, and the metadata that lies beside images."""
    return file.layout == "jsonl" or _is_metadata(shown)


def _looks_like_captions(shown: str, path: Path) -> bool:
    if any(word in _stem(shown) for word in ("caption", "label", "annotation", "metadata")):
        return True
    try:
        with path.open("rb") as file:
            return MENTION.search(file.read(_SAMPLE_BYTES).replace(b"\0", b"")) is not None
    except OSError:
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


def _with_split(row: Row, split: Split) -> Row:
    return Row(row.where, row.image, row.captions, row.image_id, row.caption_id, split, row.metadata)


def _no_captions(file: ListFile) -> str:
    found = ", ".join(map(repr, file.names)) or "none"
    return (
        "no column for the caption: call it caption, text or title, or name it with --caption-column"
        f" (columns found: {found})"
    )


def _base_folder(place: Place, tables: Sequence[Table]) -> Path:
    """The folder that image names are relative to: above a folder of annotations, if the table lies in one."""
    folder = place.root
    alone = place.path.is_file() and folded(folder.name) in FOLDERS
    return folder.parent if alone and tables[0].file.layout == "coco" else folder
