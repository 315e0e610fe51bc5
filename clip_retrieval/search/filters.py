"""Which rows of a collection a ``where`` lets through: every condition is evaluated on columns.

The result is exact by construction; the index decides how a search keeps to these rows. The masks of the latest
conditions are kept, because the pages of one search ask with the same conditions.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import StoredColumn
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.conditions import Condition, Entry, FilterTree, conditions_of
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import FieldType, Modality, Scalar
from clip_retrieval.search.browse import Keys, keys_of
from clip_retrieval.search.columns import DATED, RANGES, Column, Mask, column_of, empty_column

MASKS_KEPT = 16

Wanted: TypeAlias = Mapping[str, Entry]
"""A tree of conditions that was validated: by the name of the field, or of ``and``, ``or`` and ``not``."""


class MaskCache:
    """The masks of the latest conditions. Any thread may use it."""

    def __init__(self) -> None:
        self._masks: LRUCache[tuple[Modality, str, str], Mask] = LRUCache(MASKS_KEPT)
        self._lock = threading.Lock()

    def get(self, where: Wanted, target: Modality, make: Callable[[], Mask], beside: str = "{}") -> Mask:
        """The mask of these conditions, read-only: the one that is kept, or what ``make`` makes.

        ``beside`` is what else the mask depends on.
        """
        key = (target, canonical(where), beside)
        with self._lock:
            kept = self._masks.get(key)
        if kept is not None:
            return kept
        mask = make()
        mask.flags.writeable = False
        with self._lock:
            self._masks[key] = mask
        return mask

    def keeps(self, where: Wanted, target: Modality) -> bool:
        """Whether the mask of these conditions is kept, so that ``get`` takes no time."""
        key = (target, canonical(where), "{}")
        with self._lock:
            return key in self._masks

    def forget(self) -> None:
        """Drop the masks that are kept."""
        with self._lock:
            self._masks.clear()


class RowFilter:
    """The fields of a collection and the rows that conditions on them let through. Any thread may use it."""

    def __init__(self, columns: Sequence[StoredColumn], caption_image_rows: NDArray[np.int32]) -> None:
        """``caption_image_rows``, of shape (captions,), is the image row of each caption."""
        self._stored = {stored.info.name: stored for stored in columns}
        self._columns = {stored.info.name: column_of(stored) for stored in columns}
        self.fields: list[FieldInfo] = [stored.info for stored in columns]
        """What a ``where`` can name: the metadata columns by name, then ``split``."""
        self._rows = columns[0].rows if columns else 0
        self._caption_image_rows = caption_image_rows
        self._masks = MaskCache()

    def mask(self, where: Wanted, target: Modality, absent: Mapping[str, FieldType] | None = None) -> Mask:
        """The rows of ``target`` that fulfil every condition of ``where``; read-only.

        A caption fulfils what its image fulfils. ``absent`` are fields of which no row has a value, with their types.
        Raises InvalidQuery for an unknown field, and for a value that a field cannot be compared with.
        """
        new = absent or {}
        return self._masks.get(where, target, lambda: self._mask(where, target, new), json.dumps(new, sort_keys=True))

    def _mask(self, where: Wanted, target: Modality, absent: Mapping[str, FieldType]) -> Mask:
        columns = {**self._columns, **{name: empty_column(name, kind) for name, kind in absent.items()}}
        check_fields(columns, where)
        mask = fulfilling(columns, self._rows, where)
        return mask if target == "images" else mask[self._caption_image_rows]

    def keeps(self, where: Wanted, target: Modality) -> bool:
        """Whether the mask of these conditions is kept, so that ``mask`` takes no time."""
        return self._masks.keeps(where, target)

    def forget(self) -> None:
        """Drop the masks that are kept."""
        self._masks.forget()

    def keys(self, field: str) -> Keys:
        """What rows are sorted by for this field. Raises InvalidQuery for an unknown one."""
        check_sort(self._stored, field)
        return keys_of(self._stored[field])

    def check(self, where: Wanted) -> None:
        """Raise InvalidQuery for a field that the collection does not have."""
        check_fields(self._columns, where)


def check_fields(known: Collection[str], where: Wanted) -> None:
    """Raise InvalidQuery for a field that is not known."""
    for name, _ in conditions_of(where):
        if name not in known:
            raise InvalidQuery(f"where: there is no field {name}; the fields are {', '.join(known) or 'none'}")


def check_sort(known: Collection[str], field: str) -> None:
    """Raise InvalidQuery for a field that is not known."""
    if field not in known:
        raise InvalidQuery(f"sort: there is no field {field}; the fields are {', '.join(known) or 'none'}")


def fulfilling(columns: Mapping[str, Column], rows: int, where: Wanted) -> Mask:
    """The rows, of ``rows``, that fulfil ``where``; each condition names one of ``columns``. Raises InvalidQuery.

    A column of one row stands for as many equal ones. A tree of ``not`` lets through precisely the other rows, those
    without a value too.
    """
    mask = np.ones(rows, dtype=np.bool_)
    for name, wanted in where.items():
        if isinstance(wanted, list):
            mask &= _combined(name, [fulfilling(columns, rows, tree.root) for tree in wanted])
        else:
            for part in _parts(columns[name], wanted):
                mask &= part
    return mask


def _combined(combiner: str, masks: Sequence[Mask]) -> Mask:
    mask: Mask = (np.logical_and if combiner == "and" else np.logical_or).reduce(masks)
    return ~mask if combiner == "not" else mask


def _parts(column: Column, wanted: Scalar | Condition) -> Iterator[Mask]:
    if not isinstance(wanted, Condition):
        yield column.equal(wanted)
        return
    if wanted.among is not None:
        yield np.logical_or.reduce([column.equal(value) for value in wanted.among])
    for side in RANGES:
        if (bound := getattr(wanted, side)) is not None:
            yield column.within(side, bound)
    if wanted.contains is not None:
        yield column.contains(wanted.contains)
    for place in DATED:
        if (date := getattr(wanted, place)) is not None:
            yield column.dated(place, date)


def canonical(where: Wanted) -> str:
    """The same text for the same conditions, in whatever order those of one object were given."""
    return json.dumps(_plain(where), sort_keys=True)


def _plain(where: Wanted) -> dict[str, object]:
    return {name: _plain_entry(wanted) for name, wanted in where.items()}


def _plain_entry(wanted: Scalar | Condition | list[FilterTree]) -> object:
    if isinstance(wanted, Condition):
        return wanted.model_dump(by_alias=True, exclude_none=True)
    if isinstance(wanted, list):
        return {"": [_plain(tree.root) for tree in wanted]}  # no operator has an empty name
    return [wanted]
