"""What the fields of a live collection hold: the values of a base and of added rows, counted together."""

from bisect import bisect_left
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import MAX_VALUES, StoredCodes, StoredColumn, StoredNumbers
from clip_retrieval.contract.collection import FieldInfo, FieldValue


def live_info(
    base: StoredColumn | None, added: StoredColumn, live_base: NDArray[np.bool_], live_added: NDArray[np.bool_]
) -> FieldInfo:
    """A field as ``artifacts/columns.py`` describes it, of the live rows of both columns, which are of one type.

    ``base`` is None if only added rows have the field. The masks have the shapes (base rows,) and (added rows,).
    """
    name, kind = added.info.name, added.info.type
    if isinstance(added, StoredNumbers):
        numbers = added.numbers[live_added]
        if isinstance(base, StoredNumbers):
            numbers = np.concatenate([base.numbers[live_base], numbers])
        held = numbers[~np.isnan(numbers)]
        low, high = (float(held.min()), float(held.max())) if len(held) else (None, None)
        return FieldInfo(name=name, type=kind, count=len(held), values=[], min=low, max=high)
    counts = _counts(added, live_added)
    more = [(added.values[place], count) for place, count in enumerate(counts.tolist()) if count]
    frequent: list[tuple[str, int]] = []
    total = int(counts.sum())
    if isinstance(base, StoredCodes):
        base_counts = _counts(base, live_base)
        total += int(base_counts.sum())
        more = [one for one in more if not _counted_with(base, base_counts, *one)]
        best = np.argsort(-base_counts, kind="stable")[:MAX_VALUES].tolist()
        frequent = [(base.values[place], int(base_counts[place])) for place in best if base_counts[place]]
    ordered = sorted(chain(frequent, more), key=lambda one: (-one[1], one[0]))[:MAX_VALUES]
    values = [FieldValue(value=text == "true" if kind == "boolean" else text, count=count) for text, count in ordered]
    return FieldInfo(name=name, type=kind, count=total, values=values)


def _counts(column: StoredCodes, live: NDArray[np.bool_]) -> NDArray[np.int64]:
    codes = column.codes[live]
    return np.bincount(codes[codes >= 0], minlength=len(column.values)).astype(np.int64)


def _counted_with(base: StoredCodes, counts: NDArray[np.int64], text: str, count: int) -> bool:
    """Whether the base has this value too; its rows are then counted there."""
    place = bisect_left(base.values, text)
    if place == len(base.values) or base.values[place] != text:
        return False
    counts[place] += count
    return True
