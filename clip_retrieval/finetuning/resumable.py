"""An array that is computed batch by batch, in order, and survives a kill."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from clip_retrieval.encoders.base import Vectors


class ResumableVectors:
    """A float32 array of shape (rows, dim) in a file that is filled from the top and counts the rows it has.

    The count is in a small file beside the array, so that a run that was killed resumes after the last whole batch. The
    file grows by ordinary writes: in a sparse file that is mapped into memory, a full disk would end the process.
    """

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        """Open the ``.npy`` file ``path``; a file of another shape, or without its count, is started anew."""
        self._path = path
        self._counter = path.with_suffix(".done")
        self.rows, self._dim = rows, dim
        self.done = 0
        if path.exists() and self._counter.exists():
            with path.open("rb") as file:
                self._start = self._header(file)
                stored = (path.stat().st_size - self._start) // max(1, 4 * dim)
            if self._start:
                self.done = min(int(self._counter.read_text() or 0), rows, stored)
                return
        self._counter.unlink(missing_ok=True)  # before the rows that it counts disappear
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
            np.lib.format.write_array_header_1_0(file, header)
            self._start = file.tell()
        self._save_counter()

    def append(self, batch: Vectors) -> None:
        """Write the next ``len(batch)`` rows, then count them: a kill between the two costs one batch."""
        with self._path.open("r+b") as file:
            file.seek(self._start + 4 * self._dim * self.done)
            file.write(np.ascontiguousarray(batch, dtype="<f4").tobytes())
        self.done += len(batch)
        self._save_counter()

    def finish(self) -> Vectors:
        """The whole array, for reading. Raises ValueError if rows are missing."""
        if self.done != self.rows:
            raise ValueError(f"the array has {self.done} of {self.rows} rows")
        array: Vectors = np.load(self._path, mmap_mode="r" if self.rows else None)
        return array

    def _header(self, file: BinaryIO) -> int:
        """Where the rows start in a file of this shape; 0 for another file."""
        try:
            np.lib.format.read_magic(file)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError:
            return 0
        fits = shape == (self.rows, self._dim) and dtype == np.float32 and not fortran_order
        return file.tell() if fits else 0

    def _save_counter(self) -> None:
        temporary = self._counter.with_suffix(".tmp")
        temporary.write_text(str(self.done))
        temporary.replace(self._counter)
