"""A text table with a header: comma, semicolon, tab or bar between its cells."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import Roles, numbered, roles_of
from clip_retrieval.datasets.delimited import BrokenRow, Heading, heading_of, rows_below
from clip_retrieval.datasets.list_file import NotAList
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.rows import Row, row_of
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.datasets.text_file import encoding_of, lines_of
from clip_retrieval.records import Reject

_NUMBER_AND_CAPTION = re.compile(r"\s*(\d+)\s+(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class CsvTable:
    """A table that was understood. A ``ListFile``."""

    file: StoredFile
    encoding: Encoding
    heading: Heading
    cells: tuple[str, ...]
    """The columns, each with a name of its own: a repeated name is numbered, and so is a column without a name."""
    roles: Roles
    layout: str = "csv"

    @property
    def has_captions(self) -> bool:
        return bool(self.roles.captions)

    @property
    def columns(self) -> dict[str, list[str]]:
        return self.roles.by_role()

    @property
    def names(self) -> Sequence[str]:
        return self.cells

    def taken(self) -> TakenFile:
        return TakenFile(self.file.name, self.encoding.name, self.heading.separator, guessed=not self.encoding.sure)

    def rows(self) -> Iterator[Row | Reject]:
        """Empty cells are left out, except in a caption column: an empty caption stays a caption."""
        kept_empty = {self.roles.captions[0]} if len(self.roles.captions) == 1 else set()
        for row in rows_below(lines_of(self.file, self.encoding.name), self.heading):
            where = f"{self.file.name} line {row.line}"
            if isinstance(row, BrokenRow):
                if (cells := self._mended(row)) is None:
                    yield Reject(where, row.reason, may_hide=True)
                    continue
            else:
                cells = row.cells
            named = zip(self.cells, cells, strict=True)
            values = {name: cell for name, cell in named if cell.strip() or name in kept_empty}
            yield row_of(where, values, self.roles)

    def _mended(self, row: BrokenRow) -> Sequence[str] | None:
        """A row with number and caption in one cell; every copy of Flickr30k's table has such a row."""
        number = self.roles.others.get("caption_number")
        place = self.cells.index(number) if number in self.cells else len(row.cells)
        if len(row.cells) != len(self.cells) - 1 or place >= len(row.cells):
            return None
        match = _NUMBER_AND_CAPTION.fullmatch(row.cells[place])
        return [*row.cells[:place], match[1], match[2], *row.cells[place + 1 :]] if match else None


def understand(file: StoredFile, options: SourceOptions) -> CsvTable:
    """The table in ``file``. Raises NotAList with what was seen, and SourceError if the file cannot be read."""
    encoding = encoding_of(file, options.encoding)

    def score(cells: Sequence[str]) -> int:
        try:
            roles = _roles(_named(cells), options)
        except ValueError:
            return 0
        if _is_row(cells):
            return 1
        return 2 * (roles.image is not None) + bool(roles.captions)

    heading = heading_of(lines_of(file, encoding.name), score)
    if heading is None:
        raise NotAList("the file is empty")
    if _is_row(heading.cells) and options.image_column is None:  # the table has no header
        if len(heading.cells) > 2:
            raise NotAList(
                "it has no header, and more than two columns: write one as the first line, such as image,caption"
            )
        heading = Heading(heading.line - 1, ["image", "caption"], heading.separator)
    names = _named(heading.cells)
    try:
        roles = _roles(names, options)
    except ValueError as error:
        raise NotAList(str(error)) from error
    found = ", ".join(map(repr, names)) or "none"
    if roles.image is None:
        raise NotAList(
            "no column for the image: call it image, file_name or path, or name it with --image-column"
            f" (columns found: {found})"
        )
    return CsvTable(file, encoding, heading, names, roles)


def _is_row(cells: Sequence[str]) -> bool:
    """Whether the first line of a table is a row already: an image and a caption."""
    return len(cells) > 1 and PurePosixPath(cells[0].strip()).suffix.lower() in IMAGE_SUFFIXES


def _roles(names: Sequence[str], options: SourceOptions) -> Roles:
    return roles_of(names, options.image_column, options.caption_columns)


def _named(cells: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns, stripped and numbered.

    A column without a name, such as the index that pandas writes, is called by its place: ``column 1``.
    """
    return numbered([cell.strip() or f"column {place}" for place, cell in enumerate(cells, 1)])
