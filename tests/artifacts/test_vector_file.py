"""A file of vectors is hashed and checked in one reading, and anything else than what was expected is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.vector_file import BLOCK_BYTES, BLOCK_ROWS, are_finite, open_vectors, read_vectors
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ArtifactDamaged


def saved(path: Path, vectors: Vectors) -> Path:
    np.save(path, vectors)
    return path


def test_vectors_are_looked_at_block_by_block() -> None:
    vectors = np.zeros((2 * BLOCK_ROWS + 1, 1), np.float32)
    assert are_finite(vectors)
    vectors[-1] = np.nan
    assert not are_finite(vectors)
    assert are_finite(np.empty((0, 8), np.float32))


@pytest.mark.parametrize("row", [0, 3 * BLOCK_BYTES // 32 - 1, 3 * BLOCK_BYTES // 32])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_one_reading_gives_the_hash_and_finds_a_value_that_is_not_finite(
    tmp_path: Path, row: int, value: float
) -> None:
    vectors = np.ones((3 * BLOCK_BYTES // 32 + 1, 8), np.float32)
    vectors[row, 7] = value
    path = saved(tmp_path / "images.npy", vectors)
    assert read_vectors(path) == (hashlib.sha256(path.read_bytes()).hexdigest(), value == 1)


@pytest.mark.parametrize("content", [b"", b"no array", np.full(64, np.nan).tobytes()])
def test_a_file_of_something_else_is_hashed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.npy"
    path.write_bytes(content)
    assert read_vectors(path) == (hashlib.sha256(content).hexdigest(), True)


@pytest.mark.parametrize(
    ("vectors", "found"),
    [
        (np.ones((3, 4), np.float64), "float64"),
        (np.ones((4, 3), np.float32), r"\(4, 3\)"),
        (np.asfortranarray(np.ones((3, 4), np.float32)), "row by row"),
    ],
)
def test_another_array_is_refused_with_what_it_is(tmp_path: Path, vectors: Vectors, found: str) -> None:
    with pytest.raises(ArtifactDamaged, match=found):
        open_vectors(saved(tmp_path / "images.npy", vectors), 3, 4)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.npy", np.ones((3, 4), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        open_vectors(path, 3, 4)
