"""One head of an array's file is read at a time, by any thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.array_file import HEADS, mapped
from clip_retrieval.artifacts.vector_file import open_vectors, read_vectors


@pytest.mark.parametrize("read", [mapped, read_vectors, lambda path: open_vectors(path, 4, 4)])
def test_the_heads_of_two_files_are_not_read_at_once(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.ones((4, 4), np.float32))
    with ThreadPoolExecutor(1) as pool:
        with HEADS:
            reading = pool.submit(read, path)
            assert not wait([reading], timeout=0.1).done
        assert reading.result(timeout=30) is not None
