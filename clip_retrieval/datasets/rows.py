"""Rows of a CSV or JSON Lines file, and how rows become images.

A row describes one image and has any number of captions. The case of a column's name makes no difference. If a row has
several columns for the same thing, the first column with a value counts:

    image      image_path, image, file_name, filename, file      required
    captions   caption, text, captions                           JSON: a string or a list of strings
    others     image_id, caption_id, split

Every other column is metadata: strings from CSV, typed values from JSON (a list or an object as JSON text).
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_retrieval.datasets.base import image_file, is_text, parse_split
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject, Scalar, SourceCaption, Split

IMAGE_COLUMNS = ("image_path", "image", "file_name", "filename", "file")
CAPTION_COLUMNS = ("caption", "text", "captions")
_KNOWN = frozenset({*IMAGE_COLUMNS, *CAPTION_COLUMNS, "image_id", "caption_id", "split"})


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its place, and its values by column; the names of known columns are in lower case."""

    where: str
    values: dict[str, object]


def csv_rows(path: Path) -> Iterator[Row | Reject]:
    """Rows of a CSV file in UTF-8 (with or without BOM), with commas, double quotes and a header.

    Raises SourceError if the file cannot be read, or has no column for the image or the caption. Columns without a name
    are left out. Empty cells are left out too, except in a caption column: an empty caption stays a caption.
    """
    try:
        # Bytes that are not UTF-8 become surrogates, so that only their own row is rejected.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = _header(path, reader)
            while True:
                where = f"{path.name} line {reader.line_num + 1}"
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield Reject(where, f"not CSV: {error}")
                    continue
                if cells is None:
                    return
                if cells:
                    yield _csv_row(where, header, cells)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def images_of_rows(rows: Iterator[Row | Reject], root: Path) -> Iterator[CaptionedImage | Reject]:
    """Rejected rows in their order, then the images in the order of their first rows.

    The captions of all rows about one file are joined in order. Later rows add only metadata that is missing. A row is
    rejected if its image_id or split contradicts an earlier row about the same file. An image without an image_id gets
    the name that users see.
    """
    drafts: dict[Path, _Draft] = {}
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        try:
            draft = _draft(row.values, root)
            drafts.setdefault(draft.blob.path, draft).add(draft)
        except (ValueError, RecursionError) as error:
            yield Reject(row.where, str(error))
    for draft in drafts.values():
        yield CaptionedImage(
            image_id=draft.blob.name if draft.image_id is None else draft.image_id,
            blob=draft.blob,
            captions=tuple(draft.captions),
            split=draft.split,
            metadata=draft.metadata,
        )


@dataclass(slots=True)
class _Draft:
    blob: FileBlob
    image_id: str | None
    split: Split | None
    captions: list[SourceCaption]
    metadata: dict[str, Scalar] = field(default_factory=dict)

    def add(self, later: "_Draft") -> None:
        """Add another row about this file, or raise ValueError and change nothing."""
        if later is self:
            return
        for name in ("image_id", "split"):
            mine, other = getattr(self, name), getattr(later, name)
            if mine is not None and other not in (None, mine):
                raise ValueError(f"{name} {other!r} contradicts {mine!r} of an earlier row about {self.blob.name}")
        self.image_id = self.image_id if later.image_id is None else later.image_id
        self.split = self.split or later.split
        self.captions += later.captions
        self.metadata = {**later.metadata, **self.metadata}


def _draft(values: Mapping[str, object], root: Path) -> _Draft:
    if not is_text(json.dumps(values, ensure_ascii=False)):
        raise ValueError("the row is not UTF-8 text")
    image_key, caption_key = _first(values, IMAGE_COLUMNS), _first(values, CAPTION_COLUMNS)
    name = values.get(image_key, "")
    if not isinstance(name, str):
        raise ValueError("the name of the image is not text")
    return _Draft(
        blob=image_file(root, name),
        image_id=_identity(values, "image_id"),
        split=_split(values.get("split")),
        captions=_captions(values.get(caption_key), _identity(values, "caption_id")),
        metadata={
            key: _scalar(value)
            for key, value in values.items()
            if key not in (image_key, caption_key, "image_id", "caption_id", "split")
        },
    )


def _first(values: Mapping[str, object], names: Sequence[str]) -> str:
    return next((name for name in names if values.get(name) is not None), names[0])


def _captions(given: object, identity: str | None) -> list[SourceCaption]:
    """The captions of a row. A caption_id beside several captions is numbered, since each needs its own id."""
    texts = given if isinstance(given, list) else [] if given is None else [given]
    captions = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError("a caption is not text")
        numbered = f"{identity}#{number}" if identity is not None and len(texts) > 1 else identity
        captions.append(SourceCaption(text, numbered))
    return captions


def _identity(values: Mapping[str, object], name: str) -> str | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError(f"{name} is neither text nor a whole number")
    return str(value).strip() or None if value is not None else None


def _split(value: object) -> Split | None:
    if not isinstance(value, str | None):
        raise ValueError("split is not text")
    return parse_split(value or "")


def _scalar(value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is out of range")
    if isinstance(value, str | int | float | None):  # bool is an int
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def column(name: str) -> str:
    """The name of a column in a Row."""
    return lower if (lower := name.strip().lower()) in _KNOWN else name.strip()


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [column(cell) for cell in next(reader, [])]
    except csv.Error as error:
        raise SourceError(f"{path.name} is not CSV: {error}; it must be UTF-8 text with commas") from error
    named = [name for name in header if name]
    found = ", ".join(repr(name) for name in named) or "none"
    for wanted, names in (("image", IMAGE_COLUMNS), ("caption", CAPTION_COLUMNS)):
        if not set(names) & set(named):
            raise SourceError(
                f"{path.name} has no column for the {wanted}: call it one of {', '.join(names)}"
                f" (columns found: {found})"
            )
    if len(set(named)) < len(named):
        raise SourceError(f"{path.name} has two columns of one name (columns found: {found})")
    return header


def _csv_row(where: str, header: list[str], cells: list[str]) -> Row | Reject:
    if len(cells) != len(header):
        return Reject(where, f"{len(cells)} cells, but the header has {len(header)}")
    values = zip(header, cells, strict=True)
    return Row(where, {name: cell for name, cell in values if name and (cell or name in CAPTION_COLUMNS)})
