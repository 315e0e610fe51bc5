"""Files of NumPy's arrays, mapped one at a time.

NumPy reads the head of such a file with ``ast``, which two threads must not use at once before CPython 3.12.5: it fails
at times (https://github.com/python/cpython/issues/106905). One thread verifies an artifact while another opens it.
"""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADS = Lock()
"""Held while the head of a file is read."""


def mapped(path: Path) -> NDArray[Any]:
    """The array, memory-mapped for reading. Raises OSError, ValueError or EOFError for what is none."""
    with HEADS:
        array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array
