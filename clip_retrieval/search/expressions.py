"""The conditions of a ``where`` as a filter expression of Milvus (https://milvus.io/docs/boolean.md).

An expression may let more rows through than the conditions do, never fewer, so that the mask of allowed rows
(``filters.py``) decides in the end. What Milvus cannot say as we mean it, such as ``contains`` without regard to case
in a column of many values, is left to the mask; so is the opposite of what lets more rows through.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from clip_retrieval.artifacts.columns import StoredColumn, StoredNumbers, as_text
from clip_retrieval.contract.conditions import Condition
from clip_retrieval.indexes.milvus_index import MOST_COLUMNS, column_field, given_field
from clip_retrieval.records import Scalar
from clip_retrieval.search.columns import DATED, Mask, TextColumn
from clip_retrieval.search.filters import Wanted

MAX_LISTED = 1000
"""Most values of a list in an expression."""
MAX_LITERAL_BYTES = 60_000
"""A text of a Milvus field is cut at 65,535 bytes: a longer literal would never be equal to it."""

_SIDES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def expression_of(columns: Sequence[StoredColumn], where: Wanted) -> str:
    """The expression; empty if it says nothing. The conditions are valid (``RowFilter.mask`` has taken them)."""
    places = {column.info.name: place for place, column in enumerate(columns)}
    return _all_of(list(_said(columns, places, where))).text


class _Said(NamedTuple):
    """A part of an expression; it lets every row through if the text is empty."""

    text: str
    is_exact: bool
    """Whether it lets no other rows through than the conditions do: only then can its opposite be said."""


_ANY = _Said("", False)


def _said(columns: Sequence[StoredColumn], places: Mapping[str, int], where: Wanted) -> Iterator[_Said]:
    for name, wanted in where.items():
        if not isinstance(wanted, list):
            if places[name] >= MOST_COLUMNS:
                yield _ANY
                continue
            yield from _parts(columns[places[name]], column_field(places[name]), wanted)
            continue
        trees = [_all_of(list(_said(columns, places, tree.root))) for tree in wanted]
        if name == "and":
            yield _all_of(trees)
        elif name == "or":
            yield _any_of(trees)
        else:
            yield from (_Said(f"not ({tree.text})", True) if tree.is_exact else _ANY for tree in trees)


def _all_of(parts: Sequence[_Said]) -> _Said:
    texts = [part.text for part in parts if part.text]
    return _Said(" and ".join(texts), all(part.is_exact for part in parts))


def _any_of(parts: Sequence[_Said]) -> _Said:
    if not all(part.text for part in parts):
        return _ANY
    text = " or ".join(f"({part.text})" for part in parts)
    return _Said(f"({text})", all(part.is_exact for part in parts))


def _parts(column: StoredColumn, field: str, wanted: Scalar | Condition) -> Iterator[_Said]:
    if not isinstance(wanted, Condition):
        yield _among(column, field, [wanted])
        return
    if wanted.among is not None:
        yield _among(column, field, wanted.among)
    for side, sign in _SIDES.items():
        if (bound := getattr(wanted, side)) is not None:
            literal = _literal(column, bound)
            yield _ANY if literal is None else _Said(f"({field} {sign} {literal} and {_given(field)})", True)
    if wanted.contains is not None:
        yield _of_few(column, field, lambda text: text.contains(wanted.contains or ""))
    for place in DATED:
        if (date := getattr(wanted, place)) is not None:
            yield _of_few(column, field, partial(TextColumn.dated, side=place, date=date))


def _of_few(column: StoredColumn, field: str, find: Callable[[TextColumn], Mask]) -> _Said:
    """The values that ``find`` finds, if the column has few."""
    if isinstance(column, StoredNumbers) or len(column.values) > MAX_LISTED:
        return _ANY
    codes = np.unique(column.codes[find(TextColumn(column))])
    return _among(column, field, [column.values[int(code)] for code in codes])


def _among(column: StoredColumn, field: str, values: Sequence[Scalar]) -> _Said:
    literals: list[str] = []
    for value in values:
        if value is None:
            continue
        for spelling in _spellings(column, value):
            if (literal := _literal(column, spelling)) is None:
                return _ANY
            literals.append(literal)
    if len(literals) > MAX_LISTED:
        return _ANY
    choices = [f"{given_field(field)} == false"] if None in values else []
    if literals or not choices:
        choices.append(f"{_given(field)} and {field} in [{', '.join(dict.fromkeys(literals))}]")
    return _Said(f"({' or '.join(choices)})", True)


def _given(field: str) -> str:
    return f"{given_field(field)} == true"


def _spellings(column: StoredColumn, value: str | float) -> list[str | float]:
    if column.info.type != "text":
        return [value]
    text = as_text(value)
    return list(dict.fromkeys([text, unicodedata.normalize("NFC", text)]))


def _literal(column: StoredColumn, value: str | float) -> str | None:
    """``value`` in the type of the column as Milvus writes it; None for what cannot be written."""
    if isinstance(column, StoredNumbers):
        return repr(float(value))
    text = as_text(value)
    if column.info.type == "boolean":
        return text
    if len(text.encode("utf-8", "surrogatepass")) > MAX_LITERAL_BYTES or not text.isprintable():
        return None
    return json.dumps(text, ensure_ascii=False)
