"""Which rows of a live collection a ``where`` lets through, and which metadata a change may bring.

Conditions are evaluated on the columns of the base, whose masks the base keeps, and on those of the added rows. A field
has the type that it has in the base. A field that only added images have has the type that fits all their values, as
in a build; without such images it is no field any more. So the type follows from the images, not from the order of
their changes.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import SPLIT, FieldType, StoredColumn
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.conditions import conditions_of
from clip_retrieval.errors import InvalidChange
from clip_retrieval.live.added_fields import AddedFields, fits
from clip_retrieval.records import Modality, Scalar
from clip_retrieval.search.browse import Keys, joined_keys, keys_of
from clip_retrieval.search.columns import Column, Mask, column_of
from clip_retrieval.search.field_counts import KeptCounts, OtherConditions, counted_info
from clip_retrieval.search.filters import MaskCache, RowFilter, Wanted, check_fields, check_sort, fulfilling

_SHOWN = 40
_WORDS: Mapping[FieldType, str] = {"boolean": "true or false", "number": "a number"}


class LiveFilter:
    """The fields of one state and the rows that conditions on them let through. Any thread may use it."""

    def __init__(
        self,
        base: RowFilter,
        columns: Sequence[StoredColumn],
        added: AddedFields,
        live: Mapping[Modality, Mask],
        caption_images: NDArray[np.int32],
    ) -> None:
        """``columns`` are those of ``base``. ``live`` has the live rows of the base and of what was added.

        ``caption_images``, of shape (added captions,), is the number among the added images of each caption's image.
        """
        self._base, self._added, self._live, self._caption_images = base, added, live, caption_images
        self._stored = {column.info.name: column for column in columns}
        self._base_rows = columns[0].rows if columns else 0
        self._masks = MaskCache()
        self._counts = KeptCounts()
        self._columns: dict[str, Column] = {}
        self._lock = threading.Lock()

    @cached_property
    def types(self) -> dict[str, FieldType]:
        """The type of each field that ``where`` can name: the metadata columns by name, then ``split``."""
        types = {name: stored.info.type for name, stored in self._stored.items()}
        for name in self._added:
            if name not in types and (kind := self._added.kind(name, self._live_added)) is not None:
                types[name] = kind
        return {name: types[name] for name in sorted(types, key=lambda name: (name == SPLIT, name))}

    @cached_property
    def fields(self) -> list[FieldInfo]:
        """What each field holds."""
        return [self._info(name, self._live["images"]) for name in self.types]

    def fields_beside(self, where: Wanted) -> list[FieldInfo]:
        """What each field holds in the live rows that fulfil the conditions which are not its own.

        Raises InvalidQuery as ``mask`` does.
        """
        return self._counts.get(where, lambda: self._fields_beside(where))

    def _fields_beside(self, where: Wanted) -> list[FieldInfo]:
        self.check(where)
        others = OtherConditions(where, self._live["images"], lambda part: self._mask(part, "images"))
        return [self._info(name, others.mask(name)) for name in self.types]

    def _info(self, name: str, rows: Mask) -> FieldInfo:
        """What a field holds in these rows, of base and added ones together."""
        added = self._added.column(name, self.types[name], len(self._live_added))
        return counted_info(self._stored.get(name), added, rows[: self._base_rows], rows[self._base_rows :])

    def keys(self, field: str) -> Keys:
        """What the rows of the base and the added rows are sorted by. Raises InvalidQuery for an unknown field."""
        check_sort(self.types, field)
        added = self._added.column(field, self.types[field], len(self._live_added))
        stored = self._stored.get(field)
        if stored is None:
            return np.concatenate([np.full(self._base_rows, np.nan), keys_of(added)])
        return joined_keys(stored, added)

    def check(self, where: Wanted) -> None:
        """Raise InvalidQuery for a field that the collection does not have."""
        check_fields(self.types, where)

    def mask(self, where: Wanted, target: Modality) -> Mask:
        """The live rows of ``target`` that fulfil every condition of ``where``; read-only.

        A caption fulfils what its image fulfils. Raises InvalidQuery for an unknown field, and for a value that a field
        cannot be compared with.
        """
        return self._masks.get(where, target, lambda: self._mask(where, target))

    def _mask(self, where: Wanted, target: Modality) -> Mask:
        self.check(where)
        columns = {name: self._column(name) for name, _ in conditions_of(where)}
        added = fulfilling(columns, len(self._live_added), where)
        if target == "captions":
            added = added[self._caption_images]
        return np.concatenate([self._base_mask(where, target), added]) & self._live[target]

    def keeps(self, where: Wanted, target: Modality) -> bool:
        """Whether the mask of these conditions is kept, so that ``mask`` takes no time."""
        return self._masks.keeps(where, target)

    def has_alone(self, row: int, name: str) -> bool:
        """Whether no image but that in this row has a value in a field that the base does not have."""
        if name in self._stored or row < self._base_rows:
            return False
        others = self._live_added.copy()
        others[row - self._base_rows] = False
        return self._added.kind(name, others) is None

    def forget(self) -> None:
        """Drop the masks and the counts that are kept."""
        self._masks.forget()
        self._counts.forget()

    @property
    def _live_added(self) -> Mask:
        return self._live["images"][self._base_rows :]

    def _column(self, name: str) -> Column:
        """The values of a field in the added rows."""
        with self._lock:
            column = self._columns.get(name)
        if column is None:
            column = column_of(self._added.column(name, self.types[name], len(self._live_added)))
            with self._lock:
                self._columns[name] = column
        return column

    def of_base(self, where: Wanted) -> Wanted:
        """Those parts of ``where`` that name fields of the base alone."""
        return {
            key: wanted
            for key, wanted in where.items()
            if all(name in self._stored for name, _ in conditions_of({key: wanted}))
        }

    def _base_mask(self, where: Wanted, target: Modality) -> Mask:
        """The rows of the base, removed ones included, that fulfil every condition."""
        new = {name for name, _ in conditions_of(where) if name not in self._stored}
        return self._base.mask(where, target, absent={name: self.types[name] for name in new})


def check_metadata(
    types: Mapping[str, FieldType],
    metadata: Mapping[str, Scalar],
    before: Mapping[str, Scalar] | None = None,
    has_alone: Callable[[str], bool] = lambda _: False,
) -> None:
    """Raise InvalidChange for a new value that does not fit the type of its field; a new field takes every value.

    ``types`` are those of the collection as it is before the change (``LiveCollection.field_types``). ``before`` is
    the metadata of the image then: what it keeps of that need not fit, as after a swap. ``has_alone`` says of which
    fields the image has the only value: those are as good as new.
    """
    kept = set() if before is None else {(name, type(value), value) for name, value in before.items()}
    for name, value in metadata.items():
        kind = types.get(name)
        if kind is None or value is None or name == SPLIT or fits(value, kind):
            continue
        if (name, type(value), value) in kept or has_alone(name):
            continue
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        raise InvalidChange(f"metadata.{name}: {shown} is not {_WORDS[kind]}; the other images have such values there")
