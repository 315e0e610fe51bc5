"""The cells of a text table: which character separates them, where each row ends, and which rows are broken.

Cells follow RFC 4180: a quoted cell may hold separators, line ends and doubled quotes. Spaces after a separator do not
count. A quote that never closes costs one row: the row in whose line it opened. The rows after it are read as they
stand.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

SEPARATORS = (",", ";", "\t", "|")
_IMAGES = "jpe?g|png|webp|gif|bmp|tiff?|avif|heic"
_SAMPLE_LINES = 200
_SAMPLE_ROWS = 30
_LONGEST_ROW = 2**20
"""Characters. A row of several lines that is longer holds a quote that never closed."""
csv.field_size_limit(2**31 - 1)
# The limit of 131,072 characters is one of ``csv``: a long text in one cell is no fault. A row bounds it here.


@dataclass(frozen=True, slots=True)
class CellRow:
    """The cells of one row, and the number of the line in which it begins, from 1."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A line that is not a row, and why."""

    line: int
    reason: str
    cells: Sequence[str] = ()
    """The cells of a row of another width than the header."""


@dataclass(frozen=True, slots=True)
class Heading:
    """The header of a table, and the separator of all of it. ``line`` is that of the header."""

    line: int
    cells: list[str]
    separator: str


def heading_of(lines: Iterable[str], score: Callable[[Sequence[str]], int]) -> Heading | None:
    """The header and the separator of a table, from its first lines; None for a table without a line.

    ``score`` says how well cells are understood as a header. Of separators with equal scores, the one counts by which
    most rows are as wide as the header. A first line ``sep=;``, which spreadsheets write, decides.
    """
    sample = list(islice(lines, _SAMPLE_LINES))
    start = 0
    separators: Sequence[str] = SEPARATORS
    while start < len(sample) and not sample[start].strip():
        start += 1
    if start < len(sample) and (stated := _stated(sample[start])):
        start, separators = start + 1, (stated,)
    best: tuple[tuple[int, float, int], Heading] | None = None
    for place, separator in enumerate(separators):
        rows = [row for row in islice(_rows(sample[start:], separator, None), _SAMPLE_ROWS) if isinstance(row, CellRow)]
        if not rows:
            continue
        header = rows[0].cells
        alike = sum(len(row.cells) == len(header) for row in rows) / len(rows)
        rank = (score(header), alike if len(header) > 1 else 0.0, -place)
        if best is None or rank > best[0]:
            best = (rank, Heading(start + rows[0].line, header, separator))
    return None if best is None else best[1]


def rows_below(lines: Iterable[str], heading: Heading) -> Iterator[CellRow | BrokenRow]:
    """The rows after the header, each as wide as the header; rows of empty cells are left out."""
    width = len(heading.cells)
    for row in _rows(islice(lines, heading.line, None), heading.separator, width):
        line = heading.line + row.line
        if isinstance(row, BrokenRow):
            yield BrokenRow(line, row.reason)
            continue
        cells = row.cells
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        if len(cells) != width:
            yield BrokenRow(line, f"{len(cells)} cells, but the header has {width}", cells)
        else:
            yield CellRow(line, cells)


def _stated(line: str) -> str | None:
    """The separator that a line ``sep=;`` states."""
    text = line.strip("\r\n").strip('"')
    return text[4] if len(text) == len("sep=;") and text.lower().startswith("sep=") else None


def _rows(lines: Iterable[str], separator: str, width: int | None) -> Iterator[CellRow | BrokenRow]:
    waiting: deque[tuple[int, str]] = deque()
    numbered = enumerate(lines, 1)

    def take() -> tuple[int, str] | None:
        return waiting.popleft() if waiting else next(numbered, None)

    opens = re.compile(rf'(?:^|{re.escape(separator)})\s*"')
    names_image = re.compile(rf"[^{re.escape(separator)}\"]*\.(?:{_IMAGES})\s*{re.escape(separator)}", re.IGNORECASE)
    while (first := take()) is not None:
        if '"' in first[1] and not opens.search(first[1]):  # a quote inside a cell is a character
            yield CellRow(first[0], next(csv.reader([first[1]], delimiter=separator, quoting=csv.QUOTE_NONE)))
            continue
        taken, length, quotes = [first], len(first[1]), first[1].count('"')
        while quotes % 2 and length <= _LONGEST_ROW and (following := take()) is not None:
            taken.append(following)
            length += len(following[1])
            quotes += following[1].count('"')
        # A quote that a row of its own would close has not closed before; inside, a text may begin with a file's name.
        swallowed = len(taken) > 1 and names_image.match(taken[-1][1]) is not None
        cells, reason = _cells([line for _, line in taken], separator)
        if cells is not None and not swallowed and (len(taken) == 1 or width is None or len(cells) == width):
            if any(cell.strip() for cell in cells):
                yield CellRow(first[0], cells)
            continue
        if len(taken) > 1 or quotes % 2:
            reason = "a quote opens in this row and does not close; close it, or double it inside a cell"
        yield BrokenRow(first[0], reason)
        waiting.extendleft(reversed(taken[1:]))


def _cells(lines: list[str], separator: str) -> tuple[list[str] | None, str]:
    """The cells of one row, or None and the reason."""
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    try:
        cells = next(reader, [])
    except csv.Error as error:
        return None, f"not a row of cells: {error}"
    if reader.line_num != len(lines):
        return None, "a quote closes in the middle of a cell"
    return cells, ""
