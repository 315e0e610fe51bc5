"""A column ``image_id`` that numbers rows and not images, as an export of a data frame or of a database has it.

Such numbers contradict each other: a file with two captions has two of them, or each table begins at 0 again. They are
no ids then, but a field.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from clip_retrieval.datasets.list_file import ListFile
from clip_retrieval.datasets.rows import Row
from clip_retrieval.records import Reject

_MOST_MISTAKES = 0.1
"""The share of images up to which contradictions are mistakes in single rows, which are rejected one by one."""


def number_column(files: Sequence[tuple[ListFile, str]]) -> str | None:
    """The column called ``image_id`` if it numbers rows, else None. Each file comes with its folder.

    It does if every row has a whole number there, and either no number comes twice though an image does, or more than
    every tenth image shares its number or has several. Reads all rows of files that have such a column.
    """
    columns = [name for file, _ in files for name in file.columns.get("image_id", [])]
    if not columns:
        return None
    numbers: dict[str, set[object]] = {}
    images: dict[object, set[str]] = {}
    rows = 0
    for file, folder in files:
        for row in file.rows():
            if not isinstance(row, Row) or not row.image:
                continue
            if (number := _whole(row.image_id)) is None:
                return None
            rows += 1
            image = (folder, row.image if isinstance(row.image, str) else repr(row.image))
            numbers.setdefault(number, set()).add(image)
            images.setdefault(image, set()).add(number)
    mistaken = {image for image, own in images.items() if len(own) > 1}
    mistaken.update(*(owners for owners in numbers.values() if len(owners) > 1))
    each_row_has_its_own = len(numbers) == rows and len(images) < rows
    return columns[0] if each_row_has_its_own or len(mistaken) > _MOST_MISTAKES * len(images) else None


def without_ids(rows: Iterable[Row | Reject], column: str) -> Iterable[Row | Reject]:
    """The rows with their ``image_id`` as a field of the name ``column``."""
    for row in rows:
        if isinstance(row, Row) and row.image_id is not None:
            yield replace(row, image_id=None, metadata={column: row.image_id, **row.metadata})
        else:
            yield row


def _whole(value: object) -> str | None:
    """A whole number as text, without leading zeros that make a name of it; None for anything else."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return text if text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") else None
