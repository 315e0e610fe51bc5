"""Files of NumPy's arrays, mapped one at a time.

NumPy reads the head of such a file with ``ast``, which two threads must not use at once before CPython 3.12.5: it fails
at times (https://github.com/python/cpython/issues/106905). One thread verifies an artifact while another opens it.
"""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL_BYTES = 4096
"""What is not larger need not be mapped: it takes a page of memory in both cases."""
HEADS = Lock()
"""Held while the head of a file is read."""


def mapped(path: Path) -> NDArray[Any]:
    """The array, memory-mapped for reading. Raises OSError, ValueError or EOFError for what is none."""
    with HEADS:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def opened(path: Path) -> NDArray[Any]:
    """As ``mapped``, but a small file is read.

    A mapped file costs one of the files that a process may have open, and columns are many files.
    """
    if path.stat().st_size > SMALL_BYTES:
        return mapped(path)
    with HEADS:
        array: NDArray[Any] = np.load(path)
    array.flags.writeable = False
    return array
