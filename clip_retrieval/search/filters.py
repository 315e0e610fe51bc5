"""Which rows of a collection a ``where`` lets through: every condition evaluated on columns in memory.

The result is exact by construction; how a search then keeps to these rows is the index's matter. Masks of the latest
conditions are kept, since the pages of one search ask with the same.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from cachetools import LRUCache

from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.queries import Condition
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Modality, Scalar, Split
from clip_retrieval.search.columns import Column, Mask, make_column

SPLIT = "split"
MASKS_KEPT = 16


class Filters:
    """The fields of a collection. Safe to use from several threads."""

    def __init__(self, facts: Iterable[tuple[Split, Mapping[str, Scalar]]], caption_owners: list[int]) -> None:
        """``facts`` has the split and the metadata of each image, ``caption_owners`` the image row of each caption.

        A metadata column named ``split`` stands behind the split itself.
        """
        splits: list[Scalar] = []
        cells: dict[str, list[Scalar]] = {}
        for row, (split, metadata) in enumerate(facts):
            splits.append(split)
            for name, value in metadata.items():
                if value is not None and name != SPLIT:
                    column = cells.setdefault(name, [])
                    column += [None] * (row - len(column))
                    column.append(value)
        self._columns: dict[str, Column] = {}
        for name in sorted(cells):
            column = cells.pop(name)
            self._columns[name] = make_column(name, column + [None] * (len(splits) - len(column)))
        if splits:
            self._columns[SPLIT] = make_column(SPLIT, splits)
        self.fields: list[FieldInfo] = [known.info() for known in self._columns.values()]
        """What can be asked for: the metadata columns by name, then ``split``."""
        self._owners = np.array(caption_owners, dtype=np.int64)
        self._masks: LRUCache[tuple[Modality, str], Mask] = LRUCache(MASKS_KEPT)
        self._lock = threading.Lock()

    def mask(self, where: Mapping[str, Scalar | Condition], target: Modality) -> Mask:
        """The rows of ``target`` that fulfil every condition; for captions, those whose image does. Do not change it.

        Raises InvalidQuery for a field that the collection has not, and for what a field cannot be compared with.
        """
        key = (target, canonical(where))
        with self._lock:
            kept = self._masks.get(key)
        if kept is not None:
            return kept
        rows = len(next(iter(self._columns.values()))) if self._columns else 0
        mask = np.ones(rows, dtype=np.bool_)
        for part in self._parts(where):
            mask &= part
        mask = mask if target == "images" else mask[self._owners]
        mask.flags.writeable = False
        with self._lock:
            self._masks[key] = mask
        return mask

    def forget(self) -> None:
        """Drop the masks that are kept."""
        with self._lock:
            self._masks.clear()

    def check(self, where: Mapping[str, Scalar | Condition]) -> None:
        """Raise InvalidQuery for a field that the collection has not."""
        for name in where:
            if name not in self._columns:
                there_are = ", ".join(self._columns) or "none"
                raise InvalidQuery(f"where: there is no field {name}; the fields are {there_are}")

    def _parts(self, where: Mapping[str, Scalar | Condition]) -> Iterator[Mask]:
        self.check(where)
        for name, wanted in where.items():
            column = self._columns[name]
            if not isinstance(wanted, Condition):
                yield column.equal(wanted)
                continue
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


def canonical(where: Mapping[str, Scalar | Condition]) -> str:
    """The same text for the same conditions, in whatever order they were given."""
    plain = {
        name: wanted.model_dump(by_alias=True, exclude_none=True) if isinstance(wanted, Condition) else [wanted]
        for name, wanted in where.items()
    }
    return json.dumps(plain, sort_keys=True)
