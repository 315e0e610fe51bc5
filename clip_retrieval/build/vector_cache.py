"""Vectors by key in two append-only files, so that a build that was killed encodes nothing twice.

    NAME.keys      32 bytes per vector
    NAME.vectors   float32 (dim) per vector, in the order of the keys

A key is appended after its vector is on disk. A kill can leave a torn tail; opening the cache cuts it off. The order of
the files is the order of encoding. ``gather`` writes an array in the order of the rows, so no result depends on what
was encoded when.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clip_retrieval.encoders.base import Vectors

KEY_BYTES = 32
GATHER_ROWS = 4096
"""Rows in memory at the same time while an array is written."""


def image_key(content_hash: str) -> bytes:
    """The key of an image: its content hash as bytes."""
    return bytes.fromhex(content_hash)


def caption_key(text: str) -> bytes:
    """The key of a caption: the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).digest()


class VectorCache:
    """The vectors of one modality by one encoder. Asking is safe in any thread; adding is for one thread."""

    def __init__(self, folder: Path, name: str, dim: int) -> None:
        """Open the two files in ``folder``; they are made if they are missing."""
        self._dim = dim
        self._vectors_path = folder / f"{name}.vectors"
        self._keys = (folder / f"{name}.keys").open("a+b")
        self._vectors = self._vectors_path.open("a+b")
        whole = min(_size(self._keys.fileno()) // KEY_BYTES, _size(self._vectors.fileno()) // (4 * dim))
        self._keys.truncate(whole * KEY_BYTES)
        self._vectors.truncate(whole * 4 * dim)
        self._keys.seek(0)
        stored = self._keys.read()
        self._rows = whole
        self._places = {stored[row * KEY_BYTES : (row + 1) * KEY_BYTES]: row for row in range(whole)}

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def close(self) -> None:
        """Close both files."""
        self._keys.close()
        self._vectors.close()

    def add(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Append ``vectors``, shape (len(keys), dim), under new keys. Raises ValueError for another shape."""
        if vectors.shape != (len(keys), self._dim):
            raise ValueError(f"vectors of shape {vectors.shape} do not fit {len(keys)} keys of dimension {self._dim}")
        self._vectors.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self._vectors.flush()
        os.fsync(self._vectors.fileno())
        self._keys.write(b"".join(keys))
        self._keys.flush()
        self._places.update(zip(keys, range(self._rows, self._rows + len(keys)), strict=True))
        self._rows += len(keys)

    def gather(self, keys: Sequence[bytes], out: Path) -> Vectors:
        """Write the vectors of ``keys``, in this order, to the ``.npy`` file ``out``; returns it memory-mapped.

        Shape (len(keys), dim), float32. ``out`` appears complete, and replaces an older file without changing the
        arrays that are mapped from it. Raises KeyError for a key without a vector.
        """
        return write_vectors(out, (len(keys), self._dim), self._blocks(keys))

    def _blocks(self, keys: Sequence[bytes]) -> Iterator[Vectors]:
        if not keys:
            return
        stored = np.memmap(self._vectors_path, dtype="<f4", mode="r").reshape(-1, self._dim)
        for start in range(0, len(keys), GATHER_ROWS):
            yield stored[[self._places[key] for key in keys[start : start + GATHER_ROWS]]]


def write_vectors(out: Path, shape: tuple[int, int], blocks: Iterable[Vectors]) -> Vectors:
    """Write blocks of vectors, float32 (n, dim), to the ``.npy`` file ``out`` of this shape; returns it memory-mapped.

    ``out`` appears complete, and replaces an older file without changing the arrays that are mapped from it.
    """
    partial = out.with_name(f"{out.name}.partial")
    with partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype="<f4").tobytes())
    partial.replace(out)
    vectors: Vectors = np.load(out, mmap_mode="r")
    return vectors


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size
