"""Rows of a table, and how rows become images.

A row describes one image and has any number of captions. ``column_names.py`` says which column is what. Every other
column is metadata: text from a text table, typed values from JSON (a list or an object as JSON text).
"""

import ast
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from clip_retrieval.datasets.base import is_text, parse_language, parse_split
from clip_retrieval.datasets.column_names import Roles, folded, roles_of
from clip_retrieval.datasets.outside import told_apart
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import Taking
from clip_retrieval.datasets.typed import type_columns
from clip_retrieval.records import CaptionedImage, Reject, Scalar, SourceCaption, Split

_KEPT = "; the image is kept without it"

Find = Callable[[str], StoredFile]
"""The file that a name of a table means. Raises ValueError."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its place in the source, and its values by what they are."""

    where: str
    image: object = None
    captions: Sequence[object] = ()
    image_id: object = None
    caption_id: object = None
    split: object = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    language: object = None
    """Of the captions."""


def row_of(where: str, values: Mapping[str, object], roles: Roles) -> Row:
    """The row of a table's values by column."""
    image = values.get(roles.image) if roles.image is not None else None
    if isinstance(image, dict) and "path" in image:  # as Hugging Face writes an image feature
        image = image["path"]
    others = {role: values.get(column) for role, column in roles.others.items()}
    number = others.get("caption_number")
    if others.get("caption_id") is None and number is not None and isinstance(image, str):
        others["caption_id"] = f"{image.strip()}#{str(number).strip()}"
    captions = [values[column] for column in roles.captions if values.get(column) is not None]
    return Row(
        where,
        image=image,
        captions=[text for caption in captions for text in _texts(caption)],
        image_id=others.get("image_id"),
        caption_id=others.get("caption_id"),
        split=others.get("split"),
        metadata={name: value for name, value in values.items() if name not in roles.used},
        language=others.get("language"),
    )


def roles_by_row(options: SourceOptions) -> Callable[[Mapping[str, object]], Roles]:
    """Roles for rows that each have columns of their own, as JSON objects have; the same columns are asked once."""

    @lru_cache(maxsize=1000)
    def roles(columns: tuple[str, ...]) -> Roles:
        known = {folded(name) for name in columns}
        captions = tuple(name for name in options.caption_columns if folded(name) in known)
        image = options.image_column if options.image_column and folded(options.image_column) in known else None
        roles = roles_of(columns, image, captions)
        # A row without the columns that a person named has no image or no caption, whatever else it has.
        if options.image_column is not None and image is None:
            roles = replace(roles, image=None)
        return replace(roles, captions=()) if options.caption_columns and not captions else roles

    return lambda values: roles(tuple(name for name, value in values.items() if value is not None))


def images_of_rows(rows: Iterable[tuple[Row, Find] | Reject], taking: Taking) -> Iterator[CaptionedImage | Reject]:
    """Rejects in the order of the rows, then the images in the order of their first rows.

    ``rows`` are all rows of a source, each with the function that finds its image.
    The captions of all rows about one file are joined in order. Later rows add only metadata that is missing. A row is
    rejected if its image_id or split contradicts an earlier row about the same file. A cell that cannot be read is a
    Reject, and the row is kept without it. An image without an image_id gets the name that users see. Metadata columns
    are typed as ``typed.py`` says; ``taking`` gets their types.
    """
    drafts: dict[object, _Draft] = {}
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        row, find = item
        try:
            draft, bad_cells = _draft(row, find)
            drafts.setdefault(draft.blob.path, draft).add(draft)
        except (ValueError, RecursionError) as error:
            yield Reject(row.where, str(error))
            continue
        yield from (Reject(row.where, reason + _KEPT) for reason in bad_cells)
    taking.fields.update(type_columns([draft.metadata for draft in drafts.values()]))
    yield from told_apart(
        CaptionedImage(
            image_id=draft.blob.name if draft.image_id is None else draft.image_id,
            blob=draft.blob,
            captions=tuple(draft.captions),
            split=draft.split,
            metadata=draft.metadata,
        )
        for draft in drafts.values()
    )


@dataclass(slots=True)
class _Draft:
    blob: StoredFile
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
                raise ValueError(
                    f"{name} {other!r} contradicts {mine!r} of an earlier row about {self.blob.name}; correct it, or"
                    " rename the column if it does not tell that of the image"
                )
        self.image_id = self.image_id if later.image_id is None else later.image_id
        self.split = self.split or later.split
        self.captions += later.captions
        self.metadata = {**later.metadata, **self.metadata}


def _draft(row: Row, find: Find) -> tuple[_Draft, list[str]]:
    """The image of a row, and the reasons of the cells that it is kept without. Raises ValueError for the others."""
    cells = [row.image, *row.captions, row.image_id, row.caption_id, row.split, *row.metadata, *row.metadata.values()]
    if not all(map(_is_storable, cells)):
        raise ValueError("the row has bytes that are not text of this encoding")
    if row.image is None:
        raise ValueError("the row names no image")
    if not isinstance(row.image, str):
        raise ValueError(f"the name of the image is not text but {_shown(row.image)}")
    bad: list[str] = []

    def cell(read: Callable[[], str | None]) -> str | None:
        try:
            return read()
        except ValueError as error:
            bad.append(str(error))
            return None

    image_id = cell(lambda: _identity("image_id", row.image_id))
    caption_id = cell(lambda: _identity("caption_id", row.caption_id))
    split: Split | None = cell(lambda: _split(row.split))  # type: ignore[assignment]
    texts = []
    for caption in row.captions:
        if isinstance(caption, str):
            texts.append(caption)
        else:
            bad.append(f"a caption is not text but {_shown(caption)}")
    metadata = {}
    for name, value in row.metadata.items():
        try:
            metadata[unicodedata.normalize("NFC", name)] = _scalar(value)
        except ValueError as error:
            bad.append(f"{name}: {error}")
    numbered = caption_id is not None and len(texts) > 1
    language = parse_language(row.language)
    captions = [
        SourceCaption(text, f"{caption_id}#{n}" if numbered else caption_id, language) for n, text in enumerate(texts)
    ]
    return _Draft(find(row.image), image_id, split, captions, metadata), bad


def _is_storable(cell: object) -> bool:
    """Whether every text in a cell can be stored."""
    if isinstance(cell, dict | list):
        return is_text(json.dumps(cell, ensure_ascii=False, default=str))
    return not isinstance(cell, str) or cell.isascii() or is_text(cell)


def _texts(caption: object) -> Sequence[object]:
    """The captions of one cell: a list, a list as JSON text, or one caption."""
    if isinstance(caption, str) and caption.lstrip().startswith("["):
        found = _list_in(caption)
        return [caption] if found is None else found or [""]
    return caption if isinstance(caption, list) else [caption]


def _list_in(text: str) -> list[object] | None:
    """The texts of a list as JSON or as Python writes it, which pandas does; None for any other text."""
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return found
    return None


def _identity(name: str, value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError(f"{name} is neither text nor a whole number but {_shown(value)}")
    return unicodedata.normalize("NFC", str(value).strip()) or None if value is not None else None


def _split(value: object) -> Split | None:
    if not isinstance(value, str | None):
        raise ValueError(f"split is not text but {_shown(value)}")
    return parse_split(value or "")


def _scalar(value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number is not finite")
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, int | float | None):  # bool is an int
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:39]}…"
