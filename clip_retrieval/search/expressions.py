"""The conditions of a ``where`` as a filter expression of Milvus (https://milvus.io/docs/boolean.md).

An expression may let more rows through than the conditions do, never fewer, so that the mask of allowed rows
(``filters.py``) decides in the end. What Milvus cannot say as we mean it, such as ``contains`` without regard to case
in a column of many values, is left to the mask.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from clip_retrieval.artifacts.columns import StoredColumn, StoredNumbers, as_text
from clip_retrieval.contract.queries import Condition
from clip_retrieval.indexes.milvus_index import column_field, given_field
from clip_retrieval.records import Scalar
from clip_retrieval.search.columns import TextColumn
from clip_retrieval.search.filters import Wanted

MAX_LISTED = 1000
"""Most values of a list in an expression."""
MAX_LITERAL_BYTES = 60_000
"""A text of a Milvus field is cut at 65,535 bytes: a longer literal would never be equal to it."""

_SIDES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def expression_of(columns: Sequence[StoredColumn], where: Wanted) -> str:
    """The expression; empty if it says nothing. The conditions are valid (``RowFilter.mask`` has taken them)."""
    places = {column.info.name: place for place, column in enumerate(columns)}
    parts = [
        part
        for name, wanted in where.items()
        for part in _parts(columns[places[name]], column_field(places[name]), wanted)
    ]
    return " and ".join(parts)


def _parts(column: StoredColumn, field: str, wanted: Scalar | Condition) -> Iterator[str]:
    if not isinstance(wanted, Condition):
        yield from _among(column, field, [wanted])
        return
    if wanted.among is not None:
        yield from _among(column, field, wanted.among)
    for side, sign in _SIDES.items():
        bound = getattr(wanted, side)
        if bound is not None and (literal := _literal(column, bound)) is not None:
            yield f"({field} {sign} {literal} and {_given(field)})"
    if wanted.contains is not None and not isinstance(column, StoredNumbers) and len(column.values) <= MAX_LISTED:
        codes = np.unique(column.codes[TextColumn(column).contains(wanted.contains)])
        yield from _among(column, field, [column.values[int(code)] for code in codes])


def _among(column: StoredColumn, field: str, values: Sequence[Scalar]) -> Iterator[str]:
    literals: list[str] = []
    for value in values:
        if value is None:
            continue
        for spelling in _spellings(column, value):
            if (literal := _literal(column, spelling)) is None:
                return
            literals.append(literal)
    if len(literals) > MAX_LISTED:
        return
    choices = [f"{given_field(field)} == false"] if None in values else []
    if literals or not choices:
        choices.append(f"{_given(field)} and {field} in [{', '.join(dict.fromkeys(literals))}]")
    yield f"({' or '.join(choices)})"


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
