"""One metadata column of a collection in memory, and which rows fulfil a condition on it.

A column holds numbers, truth values or text. Its type is read off its values: a table file has text alone, so a column
whose every value is a plain number is a number column; a column of mixed values is a text column that compares each
value as JSON writes it. A value to compare with is taken in the column's type if it can be ("2009" for 2009). A row
without a value fulfils one condition alone: being equal to None.
"""

import json
import re
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.contract.collection import FieldInfo, FieldValue
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Scalar

Mask: TypeAlias = NDArray[np.bool_]
"""Shape (rows,): which rows are meant."""

Range = Literal["gt", "gte", "lt", "lte"]

MAX_VALUES = 50
EXACT = 2**53
"""Whole numbers up to here are exact in double precision; a column with a larger one holds ids and is text."""

_PLAIN = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d{1,15})?")
"""A number in text as a person writes it: no code such as 007."""


class Column(ABC):
    """A column of ``rows`` values. Immutable."""

    kind: ClassVar[Literal["text", "number", "boolean"]]

    def __init__(self, name: str, missing: Mask) -> None:
        self.name = name
        self._missing = missing

    def __len__(self) -> int:
        return len(self._missing)

    @property
    def present(self) -> int:
        """How many rows have a value."""
        return len(self._missing) - int(self._missing.sum())

    def equal(self, value: Scalar) -> Mask:
        """The rows that hold ``value``; for None, those that hold none."""
        return self._missing if value is None else self._equal(value)

    @abstractmethod
    def _equal(self, value: str | float) -> Mask: ...

    def within(self, side: Range, bound: str | float) -> Mask:
        """The rows on this side of ``bound``: numbers by size, text by code points. Raises InvalidQuery."""
        raise self._refuse(f"which nothing orders as {side} {as_text(bound)[:40]!r} does")

    def contains(self, part: str) -> Mask:
        """The rows whose text has ``part`` in it, whatever the case. Raises InvalidQuery."""
        raise self._refuse(f"which have no parts such as {part[:40]!r}")

    @abstractmethod
    def info(self) -> FieldInfo: ...

    def _refuse(self, what: str) -> InvalidQuery:
        holds = {"text": "text", "number": "numbers", "boolean": "true and false"}[self.kind]
        return InvalidQuery(f"where.{self.name}: the field holds {holds}, {what}")


class _Coded(Column):
    """A column of few or many repeated values: the distinct ones in order, and the place of each row's among them."""

    def __init__(self, name: str, values: Sequence[str | None]) -> None:
        self._values = sorted({value for value in values if value is not None})
        places: dict[str | None, int] = {value: place for place, value in enumerate(self._values)}
        self._codes = np.array([places.get(value, -1) for value in values], dtype=np.int32)
        super().__init__(name, self._codes < 0)

    def _holding(self, text: str) -> Mask:
        place = bisect_left(self._values, text)
        known = place < len(self._values) and self._values[place] == text
        return self._codes == place if known else np.zeros(len(self._codes), dtype=np.bool_)

    def _frequent(self) -> list[tuple[str, int]]:
        """The most frequent values, the more frequent first, equals in order."""
        counts = np.bincount(self._codes[self._codes >= 0], minlength=len(self._values))
        order = np.argsort(-counts, kind="stable")[:MAX_VALUES].tolist()
        return [(self._values[place], int(counts[place])) for place in order]


class TextColumn(_Coded):
    """Text; of other values, their JSON."""

    kind = "text"

    def __init__(self, name: str, values: Sequence[Scalar]) -> None:
        super().__init__(name, [None if value is None else as_text(value) for value in values])
        self._folded = [value.casefold() for value in self._values]

    def _equal(self, value: str | float) -> Mask:
        return self._holding(as_text(value))

    def within(self, side: Range, bound: str | float) -> Mask:
        text = as_text(bound)
        if side in {"gt", "gte"}:
            first = (bisect_right if side == "gt" else bisect_left)(self._values, text)
            return self._codes >= first
        last = (bisect_left if side == "lt" else bisect_right)(self._values, text)
        return (self._codes < last) & ~self._missing

    def contains(self, part: str) -> Mask:
        folded = part.casefold()
        hits = np.array([folded in value for value in self._folded] + [False])  # the last is where code -1 points
        return hits[self._codes]

    def info(self) -> FieldInfo:
        values = [FieldValue(value=value, count=count) for value, count in self._frequent()]
        return FieldInfo(name=self.name, type=self.kind, count=self.present, values=values)


class BooleanColumn(_Coded):
    """True and false."""

    kind = "boolean"

    def __init__(self, name: str, values: Sequence[bool | None]) -> None:
        super().__init__(name, [None if value is None else as_text(value) for value in values])

    def _equal(self, value: str | float) -> Mask:
        text = as_text(value)
        if text not in {"true", "false"}:
            raise self._refuse(f"so it cannot be {text!r}")
        return self._holding(text)

    def info(self) -> FieldInfo:
        values = [FieldValue(value=value == "true", count=count) for value, count in self._frequent()]
        return FieldInfo(name=self.name, type=self.kind, count=self.present, values=values)


class NumberColumn(Column):
    """Numbers in double precision."""

    kind = "number"

    def __init__(self, name: str, values: Sequence[Scalar]) -> None:
        self._numbers = np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
        super().__init__(name, np.isnan(self._numbers))

    def _equal(self, value: str | float) -> Mask:
        mask: Mask = self._numbers == self._number(value)
        return mask

    def within(self, side: Range, bound: str | float) -> Mask:
        compare = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}[side]
        mask: Mask = np.asarray(compare(self._numbers, self._number(bound)))  # no value is NaN, which is on no side
        return mask

    def info(self) -> FieldInfo:
        low, high = float(np.nanmin(self._numbers)), float(np.nanmax(self._numbers))
        return FieldInfo(name=self.name, type=self.kind, count=self.present, values=[], min=low, max=high)

    def _number(self, value: str | float) -> float:
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (ValueError, OverflowError):
            number = float("nan")
        if not np.isfinite(number):
            raise self._refuse(f"and {as_text(value)[:40]!r} is none")
        return number


def make_column(name: str, values: Sequence[Scalar]) -> Column:
    """The column of these values, one a row, of the narrowest type that holds them all. One at least is not None."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in given):
        return BooleanColumn(name, [None if value is None else bool(value) for value in values])
    if all(_is_number(value) for value in given):
        return NumberColumn(name, values)
    return TextColumn(name, values)


def as_text(value: str | float) -> str:
    """Text as it is; a number or a truth value as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(value: Scalar) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    if isinstance(value, str):
        return _PLAIN.fullmatch(value) is not None and abs(float(value)) <= EXACT
    return isinstance(value, float) or abs(value) <= EXACT
