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

from clip_retrieval.artifacts.columns import OrderedValues, StoredCodes, StoredColumn, StoredNumbers, as_text
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Scalar

Mask: TypeAlias = NDArray[np.bool_]
"""Shape (rows,): which rows are meant."""

Range = Literal["gt", "gte", "lt", "lte"]

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
    def _missing(self) -> Mask: ...

    @abstractmethod
    def _equal(self, value: str | float) -> Mask: ...

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

    def _equal(self, value: str | float) -> Mask:
        text = as_text(value)
        if text not in {"true", "false"}:
            raise self._refuse(f"{text[:_SHOWN]!r} is not true or false; this field is boolean")
        return self._holding(text)


class NumberColumn(Column):
    """Numbers in double precision."""

    def __init__(self, stored: StoredNumbers) -> None:
        super().__init__(stored.info.name)
        self._numbers = stored.numbers

    def within(self, side: Range, bound: str | float) -> Mask:
        compare = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}[side]
        mask: Mask = np.asarray(compare(self._numbers, self._number(bound)))  # NaN, for no value, is on no side
        return mask

    def contains(self, part: str) -> Mask:  # noqa: ARG002
        raise self._refuse("contains needs a text field; this field is numeric")

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
