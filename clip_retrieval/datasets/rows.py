"""Rows of a table, and how rows become images.

A row describes one image and has any number of captions. ``column_names.py`` says which column is what. Every other
column is metadata: text from a text table, typed values from JSON (a list or an object as JSON text).
"""

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clip_retrieval.datasets.base import is_text, parse_language, parse_split
from clip_retrieval.datasets.caption_cell import texts_in
from clip_retrieval.datasets.column_names import Roles
from clip_retrieval.datasets.outside import told_apart
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
        captions=[text for caption in captions for text in texts_in(caption)],
        image_id=others.get("image_id"),
        caption_id=others.get("caption_id"),
        split=others.get("split"),
        metadata={name: value for name, value in values.items() if name not in roles.used},
        language=others.get("language"),
    )


def images_of_rows(rows: Iterable[tuple[Row, Find] | Reject], taking: Taking) -> Iterator[CaptionedImage | Reject]:
    """Rejects in the order of the rows, then the images in the order of their first rows.

    ``rows`` are all rows of a source, each with the function that finds its image.
    The captions of all rows about one file are joined in order. Later rows add only metadata that is missing; what
    differs is counted in ``taking``. A row is rejected if its image_id or split contradicts an earlier row about the
    same file. A cell that cannot be read is a Reject, and the row is kept without it. An image without an image_id gets
    the name that users see. Metadata columns are typed as ``typed.py`` says; ``taking`` gets their types.
    """
    taking.differing.clear()
    drafts: dict[object, _Draft] = {}
    for item in rows:
        if isinstance(item, Reject):
            yield item
            continue
        row, find = item
        try:
            draft, bad_cells = _draft(row, find)
            drafts.setdefault(draft.blob.path, draft).add(draft, taking)
        except (ValueError, RecursionError) as error:
            yield Reject(row.where, str(error), may_hide=True)
            continue
        yield from (Reject(row.where, reason + _KEPT) for reason in bad_cells)
    taking.fields.update(type_columns([draft.metadata for draft in drafts.values()]))
    for draft in drafts.values():
        for name, value in draft.metadata.items():
            taking.see(name, value)
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

    def add(self, later: "_Draft", taking: Taking) -> None:
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
        self.metadata = taking.joined(self.metadata, later.metadata)


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
