"""The values that added images have in each field, so that conditions on them take no loop over the images."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import SPLIT, StoredCodes, StoredColumn, StoredNumbers, as_text
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.live.growing import GrowingArray
from clip_retrieval.records import FieldType, Scalar, Split, field_type

BOOLEAN, NUMBER, TEXT = range(3)
"""What a value can be; each is also a text."""
_KINDS: Mapping[FieldType, int] = {"boolean": BOOLEAN, "number": NUMBER, "text": TEXT}


class AddedFields:
    """The fields of added rows. One thread at a time may add rows; any thread may read those that were there before."""

    def __init__(self) -> None:
        self._fields: dict[str, FieldValues] = {}
        self.rows = 0

    def add(self, split: Split, metadata: Mapping[str, Scalar]) -> None:
        """Add the next row."""
        for name, value in {**metadata, SPLIT: split}.items():
            if value is not None:
                if name not in self._fields:
                    self._fields = {**self._fields, name: FieldValues()}  # readers may be looping over the others
                self._fields[name].add(self.rows, value)
        self.rows += 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def column(self, name: str, kind: FieldType, rows: int) -> StoredColumn:
        """The values of the first ``rows`` rows; a value that is not of the kind counts as none."""
        values = self._fields.get(name) or FieldValues()
        return values.column(name, kind, rows)

    def kind(self, name: str, live: NDArray[np.bool_]) -> FieldType | None:
        """The type that fits all values of the rows that are ``live``, shape (rows,); None without a value."""
        values = self._fields.get(name) or FieldValues()
        return values.kind(live)


class FieldValues:
    """The values of one field: the number of its value for each row, and each distinct value once."""

    def __init__(self) -> None:
        self._codes = GrowingArray(np.int32)
        self._kinds = GrowingArray(np.int8)
        self._numbers = GrowingArray(np.float64)
        self._texts: list[str] = []
        self._places: dict[tuple[str, int], int] = {}

    def add(self, row: int, value: str | float) -> None:
        """Set the value of this row; rows before it that have none get -1."""
        key = (as_text(value), _kind(value))
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._texts)
            self._texts.append(key[0])
            self._numbers.append(np.array([float(value) if key[1] == NUMBER else np.nan]))
            self._kinds.append(np.array([key[1]], np.int8))
        codes = np.full(row + 1 - self._codes.count, -1, np.int32)
        codes[-1] = place
        self._codes.append(codes)

    def kind(self, live: NDArray[np.bool_]) -> FieldType | None:
        """As ``AddedFields.kind``."""
        codes = self._first(len(live))[live]
        kinds = set(np.unique(self._kinds.first(self._kinds.count)[codes[codes >= 0]]).tolist())
        if not kinds:
            return None
        return "boolean" if kinds == {BOOLEAN} else "number" if kinds == {NUMBER} else "text"

    def column(self, name: str, kind: FieldType, rows: int) -> StoredColumn:
        """As ``AddedFields.column``."""
        codes, count = self._first(rows), self._kinds.count
        info = FieldInfo(name=name, type=kind, count=0, values=[])
        if kind == "number":
            numbers = np.append(self._numbers.first(count), np.nan)
            return StoredNumbers(info, numbers[codes])  # code -1 is the last
        fit = np.flatnonzero(self._kinds.first(count) == BOOLEAN).tolist() if kind == "boolean" else range(count)
        ordered = sorted({self._texts[place] for place in fit})
        places = {text: place for place, text in enumerate(ordered)}
        ranks = np.full(count + 1, -1, np.int32)
        for place in fit:
            ranks[place] = places[self._texts[place]]
        return StoredCodes(info, ranks[codes], ordered)

    def _first(self, rows: int) -> NDArray[np.int32]:
        codes: NDArray[np.int32] = self._codes.first(min(rows, self._codes.count))
        missing = rows - len(codes)
        return np.concatenate([codes, np.full(missing, -1, np.int32)]) if missing else codes


def fits(value: str | float, kind: FieldType) -> bool:
    """Whether a field of this type can have the value: text takes everything, as JSON writes it."""
    return kind == "text" or _kind(value) == (BOOLEAN if kind == "boolean" else NUMBER)


def _kind(value: str | float) -> int:
    return _KINDS[field_type(value)]
