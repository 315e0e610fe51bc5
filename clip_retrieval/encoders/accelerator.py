"""What a GPU has, and what follows from it for an encoder: the precision, and how many images fit at once.

Pure functions: they are the same with and without a GPU.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "bfloat16"]
"""In which the products of matrices are computed; weights, norms and sums stay float32."""

MOST_AT_ONCE = 128
"""Inputs of one part. A part of this size keeps a large GPU busy, and a batch of several overlaps copies with work."""
SHARE = 0.5
"""Of the free memory that a part may take. The measured need is that of one size, and kernels differ between sizes."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as torch sees it."""

    name: str
    capability: tuple[int, int]
    """CUDA's compute capability, major and minor."""
    memory: int
    """Bytes of it in all."""

    @property
    def precision(self) -> Precision:
        """The fastest precision that the GPU computes in hardware.

        Since 8.0 that is bfloat16, which has float32's range, so that no model overflows; 7.x has float16 alone. Before
        that half precision is no faster. (CUDA C++ Programming Guide, "Compute Capabilities".)
        """
        major, _ = self.capability
        return "bfloat16" if major >= 8 else "float16" if major == 7 else "float32"


def part_size(free: int, each: int, most: int = MOST_AT_ONCE) -> int:
    """How many inputs to compute at once: a power of two, at least 1 and at most ``most``.

    ``free`` is the free memory of the GPU and ``each`` what one input takes of it, in bytes.
    """
    fit = max(1, min(most, int(SHARE * free) // max(1, each)))
    return 1 << (fit.bit_length() - 1)
