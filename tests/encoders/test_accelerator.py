"""What follows from a GPU: its precision, and how many inputs are computed at once."""

import pytest

from clip_retrieval.encoders.accelerator import MOST_AT_ONCE, Gpu, part_size

MB = 10**6


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), "float32"),  # Pascal
        ((7, 0), "float16"),  # Volta
        ((7, 5), "float16"),  # Turing
        ((8, 0), "bfloat16"),  # Ampere
        ((9, 0), "bfloat16"),  # Hopper
        ((12, 0), "bfloat16"),  # Blackwell
    ],
)
def test_the_precision_is_the_half_that_the_gpu_has_in_hardware(capability: tuple[int, int], precision: str) -> None:
    assert Gpu("a GPU", capability, 16_000 * MB).precision == precision


@pytest.mark.parametrize(
    ("free_mb", "each_mb", "size"),
    [(80_000, 20, MOST_AT_ONCE), (4_000, 20, 64), (3_000, 20, 64), (2_000, 20, 32), (100, 20, 2), (10, 20, 1)],
)
def test_a_part_takes_at_most_half_of_the_free_memory_and_is_a_power_of_two(
    free_mb: int, each_mb: int, size: int
) -> None:
    assert part_size(free_mb * MB, each_mb * MB) == size


def test_what_takes_no_memory_that_can_be_measured_is_bounded_all_the_same() -> None:
    assert part_size(1000 * MB, 0) == MOST_AT_ONCE
    assert part_size(0, 0) == 1
