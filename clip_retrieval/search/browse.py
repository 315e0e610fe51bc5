"""Images in an order of their own, where no query ranks them: by a field, or by their ids."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import OrderedValues, StoredColumn, StoredNumbers
from clip_retrieval.search.columns import Mask

Rows = NDArray[np.int64]
Keys = NDArray[np.float64]
"""Shape (rows,): what rows are sorted by; NaN for a row without a value."""


def keys_of(column: StoredColumn) -> Keys:
    """The keys of a column: numbers by size, text by code points, false before true."""
    if isinstance(column, StoredNumbers):
        return np.asarray(column.numbers)
    return np.where(column.codes < 0, np.nan, column.codes.astype(np.float64))


def joined_keys(first: StoredColumn, second: StoredColumn) -> Keys:
    """The keys of the rows of two columns of one type, one after the other, which compare with each other."""
    if isinstance(first, StoredNumbers) or isinstance(second, StoredNumbers):
        return np.concatenate([keys_of(first), keys_of(second)])
    # A value of the first column stands at 2 * place + 1, a new one of the second between two of these.
    step = len(second.values) + 1
    places = np.array([_place(first.values, value) * step for value in _all(second.values)] + [np.nan])
    is_new = np.array([place % (2 * step) == 0 for place in places])
    places += np.where(is_new, np.arange(1, step + 1), 0)
    return np.concatenate([(keys_of(first) * 2 + 1) * step, places[second.codes]])


def first_rows(keys: Keys, allowed: Mask | None, count: int, *, descending: bool) -> Rows:
    """At most ``count`` allowed rows in the order of their keys, equal ones in row order, those without one last."""
    rows = np.arange(len(keys)) if allowed is None else np.flatnonzero(allowed)
    keys = -keys[rows] if descending else keys[rows]
    is_missing = np.isnan(keys)
    missing, rows, keys = rows[is_missing], rows[~is_missing], keys[~is_missing]
    if len(rows) > count:
        near = keys <= np.partition(keys, count - 1)[count - 1]
        rows, keys = rows[near], keys[near]
    found: Rows = np.concatenate([rows[np.argsort(keys, kind="stable")], missing])[:count]
    return found


def _place(values: OrderedValues, value: str) -> int:
    """Twice the place of the value among these, and one if it is there."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if values[middle] < value else (low, middle)
    return 2 * low + (low < len(values) and values[low] == value)


def _all(values: OrderedValues) -> Sequence[str]:
    return [values[place] for place in range(len(values))]
