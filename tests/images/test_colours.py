"""Colours become RGB with bounded memory."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_retrieval.images.colours import to_rgb


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_the_memory_for_wide_values_does_not_grow_with_the_image(kind: type) -> None:
    """A float TIFF of 49 million pixels took 1.5 GB: numpy's copies were as large as the image, in float64."""
    values: NDArray[Any] = np.arange(4000 * 2500).reshape(4000, 2500).astype(kind)
    image = Image.fromarray(values)
    tracemalloc.start()
    levels = np.asarray(to_rgb(image))[:, :, 0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * levels.nbytes + 50 * 2**20
    assert (levels[0, 0], levels[-1, -1]) == (0, 255)
    assert np.abs(levels.mean() - 127) < 1


def test_16_bits_are_scaled_strip_by_strip() -> None:
    values = np.arange(3_000 * 1_000, dtype=np.int64).reshape(3_000, 1_000).astype(np.uint16)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(values)))[:, :, 1], values >> 8)
