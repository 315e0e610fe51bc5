"""A file of vectors: NumPy's format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""

import hashlib
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clip_retrieval.artifacts.array_file import HEADS, mapped
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged

BLOCK_ROWS = 65_536
"""Rows that are looked at together."""
BLOCK_BYTES = 2**20
"""Bytes that are read together: the caches hold them while they are looked at twice."""


def open_vectors(path: Path, rows: int, dim: int) -> Vectors:
    """The vectors, memory-mapped for reading: float32 (rows, dim). Raises ArtifactDamaged for any other array."""
    try:
        vectors: Vectors = mapped(path)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactDamaged(f"{path} cannot be read ({error}); restore or build the artifact again") from error
    if vectors.dtype != np.float32 or vectors.shape != (rows, dim) or not vectors.flags.c_contiguous:
        raise ArtifactDamaged(
            f"{path} has {vectors.dtype} {vectors.shape} instead of float32 ({rows}, {dim}) row by row; "
            "restore or build the artifact again"
        )
    return vectors


def read_vectors(path: Path) -> tuple[str, bool]:
    """The SHA-256 of the file, and whether its values are finite, if they are float32; all in one reading."""
    digest, finite = hashlib.sha256(), True
    block = bytearray(BLOCK_BYTES)
    values = np.frombuffer(block, np.float32)
    # Buffered, so that a block is whole: a file system may read less than it was asked for, and split a value.
    with path.open("rb") as file:
        start = _start_of_floats(file)
        file.seek(0)
        digest.update(file.read(start or 0))
        while size := file.readinto(block):
            digest.update(memoryview(block)[:size])
            finite = finite and (start is None or are_finite(values[: size // values.itemsize]))
    return digest.hexdigest(), finite


def are_finite(vectors: Vectors) -> bool:
    """Whether no value is infinite or NaN: either shows in a sum, and a sum reads each value once."""
    with np.errstate(over="ignore", invalid="ignore"):
        starts = range(0, len(vectors), BLOCK_ROWS)
        return all(math.isfinite(vectors[start : start + BLOCK_ROWS].sum()) for start in starts)


def not_finite(path: Path) -> ArtifactDamaged:
    """The error for vectors that no search finds."""
    return ArtifactDamaged(f"{path} holds vectors that are not finite, which no search finds; build the artifact again")


def _start_of_floats(file: BinaryIO) -> int | None:
    """Where the values of a file of float32 begin; None for any other file."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with HEADS:
            _, _, dtype = read(file)
    except (ValueError, EOFError):
        return None
    return file.tell() if dtype == np.float32 else None
