"""Rows of a shard and samples of an archive, with values of their own types, become images.

The values come from Parquet or JSON, so a number is a number. A value that cannot be used is rejected by itself: the
image and its other values stay.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from clip_retrieval.datasets.base import is_text, parse_language, parse_split
from clip_retrieval.datasets.column_names import Roles, roles_of
from clip_retrieval.datasets.taking import Taking
from clip_retrieval.records import CaptionedImage, ImageBlob, Reject, Scalar, SourceCaption, Split, field_type


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that could not be read, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, the values that belong to it by column or key, and what each column is."""

    where: str
    blob: ImageBlob
    values: Mapping[str, object]
    roles: Roles
    split: Split | None = None
    """The split that the shard tells; a column for the split counts more."""
    captions: tuple[str, ...] = ()
    """Captions from elsewhere than ``values``; a caption of ``values`` that is among them is not added again."""


def images_of(sample: Sample, taking: Taking) -> Iterator[CaptionedImage | Reject]:
    """A Reject for each value that cannot be used, then the image. What the values are is noted in ``taking``."""
    problems: list[str] = []
    roles = sample.roles
    column = roles.others.get("language")
    language = None if column is None else parse_language(sample.values.get(column))
    captions = [SourceCaption(text, None, language) for text in sample.captions]
    identity = text_in(sample.values, roles.others.get("caption_id"))
    place = text_in(sample.values, roles.others.get("caption_number"))
    if identity is None and place is not None:
        identity = f"{sample.blob.name}#{place}"
    found = [text for name in roles.captions for text in _texts(sample.values.get(name), name, problems)]
    found = [text for text in found if text not in sample.captions]
    for number, text in enumerate(found):
        numbered = f"{identity}#{number}" if identity is not None and len(found) > 1 else identity
        captions.append(SourceCaption(text, numbered, language))
    split = sample.split
    if given := text_in(sample.values, roles.others.get("split")):
        try:
            split = parse_split(given)
        except ValueError as error:
            problems.append(str(error))
    metadata: dict[str, Scalar] = {}
    for name, value in sample.values.items():
        if name in roles.used or value is None:
            continue
        try:
            if (scalar := scalar_of(value)) is not None:
                metadata[unicodedata.normalize("NFC", name)] = scalar
                _note(taking, name, value, scalar)
        except (ValueError, RecursionError) as error:
            problems.append(f"{name}: {error}")
    for problem in problems:
        yield Reject(sample.where, problem)
    image_id = text_in(sample.values, roles.others.get("image_id"))
    yield CaptionedImage(
        image_id or unicodedata.normalize("NFC", sample.blob.name), sample.blob, tuple(captions), split, metadata
    )


def joined(
    items: Iterable[CaptionedImage | Reject],
    key: Callable[[CaptionedImage], Hashable],
    taking: Taking,
    *,
    scattered: Callable[[CaptionedImage], bool],
    same: Callable[[CaptionedImage, CaptionedImage], bool] = lambda *_: True,
) -> Iterator[CaptionedImage | Reject]:
    """The items, where images of one ``key`` that are the ``same`` are one image with all their captions in order.

    Only neighbours are joined, unless an image is ``scattered``: such come last, all at once.
    Later ones add only metadata that is missing; what differs is counted in ``taking``.
    """
    near: dict[Hashable, CaptionedImage] = {}
    far: dict[Hashable, CaptionedImage] = {}
    for item in items:
        if isinstance(item, Reject):
            yield item
            continue
        name, held = key(item), far if scattered(item) else near
        first = held.get(name)
        if first is None:
            yield from near.values()
            near.clear()
        if first is not None and not same(first, item):
            yield item
            continue
        held[name] = item if first is None else _join(first, item, taking)
    yield from near.values()
    yield from far.values()


def _join(first: CaptionedImage, later: CaptionedImage, taking: Taking) -> CaptionedImage:
    return replace(
        first,
        captions=first.captions + later.captions,
        split=first.split or later.split,
        metadata=taking.joined(first.metadata, later.metadata),
    )


def scalar_of(value: object) -> Scalar:
    """A value as metadata: dates as ISO 8601 text, durations in seconds, lists and objects as JSON text, NaN as None.

    Raises ValueError for a number out of range, for bytes, and for text that cannot be stored.
    """
    match value:
        case float() if math.isnan(value):
            return None
        case float() if math.isinf(value):
            raise ValueError("a number is out of range")
        case bool() | int() | float() | None:
            return value
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return scalar_of(int(value) if value == value.to_integral_value() else float(value))
        case bytes():
            raise ValueError("bytes are no metadata")
        case Unreadable():
            raise ValueError(value.reason)
        case timedelta():
            return value.total_seconds()
        case str():
            text = value
        case list() | tuple() | dict():
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=scalar_of, allow_nan=False)
        case _:
            raise ValueError(f"{type(value).__name__} is no type of metadata")
    if not is_text(text):
        raise ValueError("not UTF-8 text")
    return unicodedata.normalize("NFC", text)


def _texts(value: object, name: str, problems: list[str]) -> Iterator[str]:
    """The captions of one value: a text, an object with a text (COCO's ``{"raw": …}``), or a list of them."""
    match value:
        case str() if is_text(value):
            yield value
        case str():
            problems.append(f"{name}: not UTF-8 text")
        case list() | tuple():
            for item in value:
                if item is None:
                    problems.append(f"{name}: one of the captions is empty")
                yield from _texts(item, name, problems)
        case dict() if keys := roles_of([key for key in value if isinstance(key, str)]).captions:
            for key in keys:
                yield from _texts(value[key], f"{name}.{key}", problems)
        case None:
            return
        case Unreadable():
            problems.append(f"{name}: {value.reason}")
        case _:
            problems.append(f"{name}: the caption is not text but {type(value).__name__}")


def text_in(values: Mapping[str, object], name: str | None) -> str | None:
    """A text or a number in the column ``name``, as text; None if there is none."""
    value = values.get(name) if name is not None else None
    if isinstance(value, float):  # a column of whole numbers with gaps comes as floats
        value = int(value) if value.is_integer() else None if math.isnan(value) else value
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    return unicodedata.normalize("NFC", text) or None


def _note(taking: Taking, name: str, value: object, scalar: str | float) -> None:
    """Note the type of a value, and what it is as metadata."""
    taking.see(name, scalar)
    kind = "date" if isinstance(value, date) else field_type(scalar)
    if taking.fields.setdefault(name, kind) != kind:
        taking.fields[name] = "text"
