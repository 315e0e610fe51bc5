"""Which rows fulfil a condition on one column of a collection.

A value to compare with is taken in the column's type where possible ("2009" for 2009). A row without a value fulfils
one condition alone: equality with None. ``artifacts/columns.py`` says how the type of a column is decided.
"""

import unicodedata
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import (
    OrderedValues,
    StoredCodes,
    StoredColumn,
    StoredNumbers,
    as_text,
)
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.iso_dates import FORMS, Period, period_of
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import FieldType, Scalar

Mask: TypeAlias = NDArray[np.bool_]
"""Shape (rows,): which rows are meant."""

Range = Literal["gt", "gte", "lt", "lte"]
Dated = Literal["before", "after", "during"]
RANGES: tuple[Range, ...] = ("gt", "gte", "lt", "lte")
DATED: tuple[Dated, ...] = ("before", "after", "during")

Seconds: TypeAlias = NDArray[np.int64]
"""Seconds since 1970 in UTC."""

_NO_DATE = np.iinfo(np.int64).max
_SHOWN = 40
"""Characters of a query's value that an error repeats."""
_FOLDED_AT_ONCE = 65_536
_END = b"\xff"
"""A byte that UTF-8 never has."""


class Column(ABC):
    """A column of a collection. Immutable."""

    def __init__(self, name: str) -> None:
        self.name = name

    def equal(self, value: Scalar) -> Mask:
        """The rows that hold ``value``; for None, the rows that hold no value. Raises InvalidQuery."""
        return self._missing() if value is None else self._equal(value)

    @abstractmethod
    def within(self, side: Range, bound: str | float) -> Mask:
        """The rows on this side of ``bound``: numbers by size, text by code points. Raises InvalidQuery."""

    @abstractmethod
    def contains(self, part: str) -> Mask:
        """The rows whose text contains ``part`` in any case. Raises InvalidQuery."""

    @abstractmethod
    def dated(self, side: Dated, date: str) -> Mask:
        """The rows whose value is a date ``before``, ``after`` or ``during`` ``date``; see ``iso_dates.py``.

        Both stand for a period: 2024 is not before 2024-05, and not after it. Raises InvalidQuery.
        """

    @abstractmethod
    def _missing(self) -> Mask: ...

    @abstractmethod
    def _equal(self, value: str | float) -> Mask: ...

    def _wanted(self, date: str) -> Period:
        """The period that a condition names."""
        if (period := period_of(date)) is None:
            raise self._refuse(f"{date[:_SHOWN]!r} is no date; write {FORMS}")
        return period

    def _refuse(self, reason: str) -> InvalidQuery:
        return InvalidQuery(f"where.{self.name}: {reason}")


class _Coded(Column):
    """A column with a code for each row: the place of the row's value among the distinct values in order, or -1."""

    def __init__(self, stored: StoredCodes) -> None:
        super().__init__(stored.info.name)
        self._codes = stored.codes
        self._values = stored.values

    def _missing(self) -> Mask:
        return self._codes < 0

    def _holding(self, text: str) -> Mask:
        place = bisect_left(self._values, text)
        known = place < len(self._values) and self._values[place] == text
        return self._codes == place if known else np.zeros(len(self._codes), dtype=np.bool_)


class TextColumn(_Coded):
    """Text; other values as JSON writes them."""

    def within(self, side: Range, bound: str | float) -> Mask:
        text = as_text(bound)
        if side in {"gt", "gte"}:
            first = (bisect_right if side == "gt" else bisect_left)(self._values, text)
            return self._codes >= first
        last = (bisect_left if side == "lt" else bisect_right)(self._values, text)
        return (self._codes < last) & ~self._missing()

    def contains(self, part: str) -> Mask:
        hits = np.zeros(len(self._values) + 1, dtype=np.bool_)  # the last entry is that of code -1
        for spelling in dict.fromkeys((part, unicodedata.normalize("NFC", part))):
            hits[self._folded.containing(spelling)] = True
        return hits[self._codes]

    def dated(self, side: Dated, date: str) -> Mask:
        return _dated(side, self._wanted(date), *self._periods)[self._codes]

    @cached_property
    def _periods(self) -> tuple[Seconds, Seconds]:
        """Where the period of each value begins and ends; an empty one beyond all others for what is no date."""
        starts, ends = np.full((2, len(self._values) + 1), _NO_DATE)  # the last entry is that of code -1
        for place in range(len(self._values)):
            if (period := period_of(self._values[place])) is not None:
                starts[place], ends[place] = period
        return starts, ends

    @cached_property
    def _folded(self) -> "_FoldedText":
        return _FoldedText(self._values)

    def _equal(self, value: str | float) -> Mask:
        text = as_text(value)
        mask = self._holding(text)
        # Readers give text in Unicode's form NFC; the query may come from a keyboard or a file name in another.
        return mask if (same := unicodedata.normalize("NFC", text)) == text else mask | self._holding(same)


class BooleanColumn(_Coded):
    """True and false."""

    def within(self, side: Range, bound: str | float) -> Mask:  # noqa: ARG002
        raise self._refuse(f"{side} needs a number or text field; this field is boolean")

    def contains(self, part: str) -> Mask:  # noqa: ARG002
        raise self._refuse("contains needs a text field; this field is boolean")

    def dated(self, side: Dated, date: str) -> Mask:  # noqa: ARG002
        raise self._refuse(f"{side} needs a field of dates; this field is boolean")

    def _equal(self, value: str | float) -> Mask:
        text = as_text(value)
        if text not in {"true", "false"}:
            raise self._refuse(f"{text[:_SHOWN]!r} is not true or false; this field is boolean")
        return self._holding(text)


class NumberColumn(Column):
    """Numbers in double precision. As dates, whole numbers of four digits are years."""

    def __init__(self, stored: StoredNumbers) -> None:
        super().__init__(stored.info.name)
        self._numbers = stored.numbers

    def within(self, side: Range, bound: str | float) -> Mask:
        compare = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}[side]
        mask: Mask = np.asarray(compare(self._numbers, self._number(bound)))  # NaN, for no value, is on no side
        return mask

    def contains(self, part: str) -> Mask:  # noqa: ARG002
        raise self._refuse("contains needs a text field; this field is numeric")

    def dated(self, side: Dated, date: str) -> Mask:
        with np.errstate(invalid="ignore"):
            is_year = (self._numbers >= 1000) & (self._numbers <= 9999) & (self._numbers == np.floor(self._numbers))
        years = np.where(is_year, self._numbers, 1970).astype(np.int64) - 1970
        starts, ends = (
            from_1970.astype("datetime64[Y]").astype("datetime64[s]").astype(np.int64)
            for from_1970 in (years, years + 1)
        )
        mask: Mask = is_year & _dated(side, self._wanted(date), starts, ends)
        return mask

    def _missing(self) -> Mask:
        mask: Mask = np.isnan(self._numbers)
        return mask

    def _equal(self, value: str | float) -> Mask:
        mask: Mask = self._numbers == self._number(value)
        return mask

    def _number(self, value: str | float) -> float:
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (ValueError, OverflowError):
            number = float("nan")
        if not np.isfinite(number):
            raise self._refuse(f"{as_text(value)[:_SHOWN]!r} is not a number; this field is numeric")
        return number


def _dated(side: Dated, wanted: Period, starts: Seconds, ends: Seconds) -> Mask:
    """Which periods, given by where they begin and end, lie so beside the one that is wanted."""
    if side == "before":
        mask: Mask = ends <= wanted.start
    elif side == "after":
        mask = (starts >= wanted.end) & (starts < _NO_DATE)
    else:
        mask = (starts >= wanted.start) & (ends <= wanted.end)
    return mask


class _FoldedText:
    """All values of a column without their case, in one string of bytes: about as much memory as the values' file."""

    def __init__(self, values: OrderedValues) -> None:
        blocks, lengths = [], []
        for start in range(0, len(values), _FOLDED_AT_ONCE):
            block = [
                values[place].casefold().encode() + _END
                for place in range(start, min(start + _FOLDED_AT_ONCE, len(values)))
            ]
            blocks.append(b"".join(block))
            lengths.append(np.fromiter(map(len, block), np.int64, len(block)))
        self._text = b"".join(blocks)
        self._ends = np.cumsum(np.concatenate(lengths)) if lengths else np.empty(0, dtype=np.int64)

    def containing(self, part: str) -> list[int]:
        """The places of the values that contain ``part`` in any case."""
        folded = part.casefold().encode("utf-8", "surrogatepass")  # half a character, which no value has
        places = []
        found = self._text.find(folded)
        while found >= 0:
            place = int(np.searchsorted(self._ends, found, side="right"))
            places.append(place)
            found = self._text.find(folded, int(self._ends[place]))
        return places


def column_of(stored: StoredColumn) -> Column:
    """The conditions on a stored column."""
    if isinstance(stored, StoredNumbers):
        return NumberColumn(stored)
    return BooleanColumn(stored) if stored.info.type == "boolean" else TextColumn(stored)


def empty_column(name: str, kind: FieldType) -> Column:
    """A column of one row without a value."""
    info = FieldInfo(name=name, type=kind, count=0, values=[])
    if kind == "number":
        return column_of(StoredNumbers(info, np.array([np.nan])))
    return column_of(StoredCodes(info, np.array([-1], np.int32), []))
