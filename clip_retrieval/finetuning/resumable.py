"""An array that is computed batch by batch, in order, and survives a kill."""

from pathlib import Path

import numpy as np

from clip_retrieval.encoders.base import Vectors


class ResumableVectors:
    """A memory-mapped float32 array of shape (rows, dim) that is filled from the top and counts the rows it has.

    The count is in a small file beside the array, so that a run that was killed resumes after the last whole batch.
    """

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        """Open the ``.npy`` file ``path``; a file of another shape, or without its count, is started anew."""
        self._path = path
        self._counter = path.with_suffix(".done")
        self.rows = rows
        self.done = 0
        if path.exists() and self._counter.exists():
            self._array = np.lib.format.open_memmap(path, mode="r+")
            if self._array.shape == (rows, dim) and self._array.dtype == np.float32:
                self.done = min(int(self._counter.read_text() or 0), rows)
                return
        self._counter.unlink(missing_ok=True)  # before the rows that it counts disappear
        self._array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
        self._save_counter()

    def append(self, batch: Vectors) -> None:
        """Write the next ``len(batch)`` rows, then count them: a kill between the two costs one batch."""
        self._array[self.done : self.done + len(batch)] = batch
        self._array.flush()
        self.done += len(batch)
        self._save_counter()

    def finish(self) -> Vectors:
        """The whole array, for reading. Raises ValueError if rows are missing."""
        if self.done != self.rows:
            raise ValueError(f"the array has {self.done} of {self.rows} rows")
        array: Vectors = np.load(self._path, mmap_mode="r") if self.rows else np.asarray(self._array)
        return array

    def _save_counter(self) -> None:
        temporary = self._counter.with_suffix(".tmp")
        temporary.write_text(str(self.done))
        temporary.replace(self._counter)
