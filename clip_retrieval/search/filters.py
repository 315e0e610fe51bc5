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
from clip_retrieval.contract.queries import Condition
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Modality, Scalar
from clip_retrieval.search.columns import Column, Mask, column_of

MASKS_KEPT = 16

Wanted: TypeAlias = Mapping[str, Scalar | Condition]
"""Conditions that were validated, by the name of the field."""


class MaskCache:
    """The masks of the latest conditions. Any thread may use it."""

    def __init__(self) -> None:
        self._masks: LRUCache[tuple[Modality, str], Mask] = LRUCache(MASKS_KEPT)
        self._lock = threading.Lock()

    def get(self, where: Wanted, target: Modality, make: Callable[[], Mask]) -> Mask:
        """The mask of these conditions, read-only: the one that is kept, or what ``make`` makes."""
        key = (target, canonical(where))
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
        key = (target, canonical(where))
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
        self._columns = {stored.info.name: column_of(stored) for stored in columns}
        self.fields: list[FieldInfo] = [stored.info for stored in columns]
        """What a ``where`` can name: the metadata columns by name, then ``split``."""
        self._rows = columns[0].rows if columns else 0
        self._caption_image_rows = caption_image_rows
        self._masks = MaskCache()

    def mask(self, where: Wanted, target: Modality) -> Mask:
        """The rows of ``target`` that fulfil every condition of ``where``; read-only.

        A caption fulfils what its image fulfils. Raises InvalidQuery for an unknown field, and for a value that a field
        cannot be compared with.
        """
        return self._masks.get(where, target, lambda: self._mask(where, target))

    def _mask(self, where: Wanted, target: Modality) -> Mask:
        self.check(where)
        mask = fulfilling(self._columns, self._rows, where)
        return mask if target == "images" else mask[self._caption_image_rows]

    def keeps(self, where: Wanted, target: Modality) -> bool:
        """Whether the mask of these conditions is kept, so that ``mask`` takes no time."""
        return self._masks.keeps(where, target)

    def forget(self) -> None:
        """Drop the masks that are kept."""
        self._masks.forget()

    def check(self, where: Wanted) -> None:
        """Raise InvalidQuery for a field that the collection does not have."""
        check_fields(self._columns, where)


def check_fields(known: Collection[str], where: Wanted) -> None:
    """Raise InvalidQuery for a field that is not known."""
    for name in where:
        if name not in known:
            raise InvalidQuery(f"where: there is no field {name}; the fields are {', '.join(known) or 'none'}")


def fulfilling(columns: Mapping[str, Column], rows: int, where: Wanted) -> Mask:
    """The rows, of ``rows``, that fulfil every condition; each names one of ``columns``. Raises InvalidQuery."""
    mask = np.ones(rows, dtype=np.bool_)
    for name, wanted in where.items():
        for part in _parts(columns[name], wanted):
            mask &= part
    return mask


def _parts(column: Column, wanted: Scalar | Condition) -> Iterator[Mask]:
    if not isinstance(wanted, Condition):
        yield column.equal(wanted)
        return
    if wanted.among is not None:
        yield np.logical_or.reduce([column.equal(value) for value in wanted.among])
    if wanted.gt is not None:
        yield column.within("gt", wanted.gt)
    if wanted.gte is not None:
        yield column.within("gte", wanted.gte)
    if wanted.lt is not None:
        yield column.within("lt", wanted.lt)
    if wanted.lte is not None:
        yield column.within("lte", wanted.lte)
    if wanted.contains is not None:
        yield column.contains(wanted.contains)


def canonical(where: Wanted) -> str:
    """The same text for the same conditions, in whatever order they were given."""
    plain = {
        name: wanted.model_dump(by_alias=True, exclude_none=True) if isinstance(wanted, Condition) else [wanted]
        for name, wanted in where.items()
    }
    return json.dumps(plain, sort_keys=True)
