"""Arrays that only grow, so that states which follow each other share one."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

FIRST_ROWS = 16_384
"""Rows that are reserved at first. The system gives memory only to rows that are written."""


class GrowingArray:
    """Rows of one shape and type. A row never changes, so a view of the first rows stays right while others are added.

    One thread at a time may append; any thread may take views.
    """

    def __init__(self, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> None:
        """``shape`` is that of one row."""
        self._rows: NDArray[Any] = np.empty((FIRST_ROWS, *shape), dtype)
        self.count = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows, shape (n, *shape)."""
        end = self.count + len(rows)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows)), *self._rows.shape[1:]), self._rows.dtype)
            grown[: self.count] = self._rows[: self.count]
            self._rows = grown
        self._rows[self.count : end] = rows
        self.count = end

    def first(self, count: int) -> NDArray[Any]:
        """A view of the first ``count`` rows, read-only."""
        view = self._rows[:count]
        view.flags.writeable = False
        return view
