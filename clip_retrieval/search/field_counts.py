"""What the fields of a collection hold: the values of some of its rows, counted; also beside what filters let through.

The number beside a value of a filter says how many images one would see with it: those that meet all other conditions
of the filter, and not the field's own.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import MAX_VALUES, StoredCodes, StoredColumn, StoredNumbers
from clip_retrieval.contract.collection import FieldInfo, FieldValue
from clip_retrieval.contract.conditions import conditions_of
from clip_retrieval.search.columns import Mask
from clip_retrieval.search.filters import Wanted, canonical

KEPT = 32
"""Filters beside which the counts are kept: those that a few visitors go through."""


def counted_info(base: StoredColumn | None, added: StoredColumn | None, in_base: Mask, in_added: Mask) -> FieldInfo:
    """A field as ``artifacts/columns.py`` describes it, of the rows of both columns that the masks let through.

    The columns are of one type; one of them may be None. The masks have the shapes (base rows,) and (added rows,).
    """
    columns = [(column, mask) for column, mask in ((base, in_base), (added, in_added)) if column is not None]
    name, kind = columns[-1][0].info.name, columns[-1][0].info.type
    numbers = [column.numbers[mask] for column, mask in columns if isinstance(column, StoredNumbers)]
    if numbers:
        together = np.concatenate(numbers)
        held = together[~np.isnan(together)]
        low, high = (float(held.min()), float(held.max())) if len(held) else (None, None)
        return FieldInfo(name=name, type=kind, count=len(held), values=[], min=low, max=high)
    more: list[tuple[str, int]] = []
    frequent: list[tuple[str, int]] = []
    total = 0
    if isinstance(added, StoredCodes):
        counts = _counts(added, in_added)
        more = [(added.values[place], count) for place, count in enumerate(counts.tolist()) if count]
        total = int(counts.sum())
    if isinstance(base, StoredCodes):
        base_counts = _counts(base, in_base)
        total += int(base_counts.sum())
        more = [one for one in more if not _counted_with(base, base_counts, *one)]
        frequent = [(base.values[place], int(base_counts[place])) for place in _most_frequent(base_counts)]
    ordered = sorted(chain(frequent, more), key=lambda one: (-one[1], one[0]))[:MAX_VALUES]
    values = [FieldValue(value=text == "true" if kind == "boolean" else text, count=count) for text, count in ordered]
    return FieldInfo(name=name, type=kind, count=total, values=values)


class OtherConditions:
    """For each field the rows that meet the conditions of a tree which are not the field's own."""

    def __init__(self, where: Wanted, every: Mask, mask_of: Callable[[Wanted], Mask]) -> None:
        """``every`` are the rows that count without a condition; ``mask_of`` gives those that meet a tree."""
        self._parts = [(fields, mask_of(part)) for fields, part in parts_of(where)]
        self._every = every
        self._all = self._without(frozenset())
        self._own = {field for fields, _ in self._parts if len(fields) == 1 for field in fields}

    def mask(self, field: str) -> Mask:
        """The rows beside which this field is counted: shape (rows,)."""
        return self._without(frozenset((field,))) if field in self._own else self._all

    def _without(self, own: frozenset[str]) -> Mask:
        mask = self._every.copy()
        for fields, part in self._parts:
            if fields != own:
                mask &= part
        return mask


def fields_beside(columns: Sequence[StoredColumn], where: Wanted, mask_of: Callable[[Wanted], Mask]) -> list[FieldInfo]:
    """Each column of one collection, counted over the rows that meet the conditions which are not its own."""
    if not columns:
        return []
    none = np.empty(0, np.bool_)
    others = OtherConditions(where, np.ones(columns[0].rows, np.bool_), mask_of)
    return [counted_info(column, None, others.mask(column.info.name), none) for column in columns]


def parts_of(where: Wanted) -> Iterator[tuple[frozenset[str], Wanted]]:
    """The conditions that must all be met, as trees of their own, each with the fields that it names.

    A part that names one field alone is that field's own. A list of ``and`` has its parts one by one.
    """
    for name, wanted in where.items():
        if name == "and" and isinstance(wanted, list):
            for tree in wanted:
                yield from parts_of(tree.root)
        else:
            yield frozenset(field for field, _ in conditions_of({name: wanted})), {name: wanted}


class KeptCounts:
    """The counts beside the latest filters, of one state of a collection. Any thread may use it."""

    def __init__(self) -> None:
        self._counts: LRUCache[str, Sequence[FieldInfo]] = LRUCache(KEPT)
        self._lock = threading.Lock()

    def get(self, where: Wanted, count: Callable[[], Sequence[FieldInfo]]) -> list[FieldInfo]:
        """The fields beside ``where``: those that are kept, or what ``count`` makes."""
        key = canonical(where)
        with self._lock:
            kept = self._counts.get(key)
        if kept is None:
            kept = count()
            with self._lock:
                self._counts[key] = kept
        return list(kept)

    def forget(self) -> None:
        """Drop what is kept."""
        with self._lock:
            self._counts.clear()


def _counts(column: StoredCodes, rows: Mask) -> NDArray[np.int64]:
    codes = column.codes[rows]
    return np.bincount(codes[codes >= 0], minlength=len(column.values)).astype(np.int64)


def _most_frequent(counts: NDArray[np.int64]) -> list[int]:
    """The places of the ``MAX_VALUES`` highest counts above 0; of equal ones those that come first."""
    held = np.flatnonzero(counts)
    if len(held) > MAX_VALUES:
        least = np.partition(counts[held], -MAX_VALUES)[-MAX_VALUES]
        above, equal = held[counts[held] > least], held[counts[held] == least]
        held = np.concatenate([above, equal[: MAX_VALUES - len(above)]])
    places: list[int] = held.tolist()
    return places


def _counted_with(base: StoredCodes, counts: NDArray[np.int64], text: str, count: int) -> bool:
    """Whether the base has this value too; its rows are then counted there."""
    place = bisect_left(base.values, text)
    if place == len(base.values) or base.values[place] != text:
        return False
    counts[place] += count
    return True
