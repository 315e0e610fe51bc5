"""Equal memory of several processes can be kept once, where the kernel's administrator has switched that on."""

import sys
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.encoders.openvino.memory import KSM, mergeable

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not KSM.exists(), reason="only some kernels of Linux merge pages"
)


def flags_at(address: int) -> list[str]:
    """The kernel's flags of the piece of memory that has this address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(errors="surrogateescape").splitlines():
        if "-" in (span := line.split(maxsplit=1)[0]) and not span.endswith(":"):
            start, end = (int(part, 16) for part in span.split("-"))
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"nothing is at {address:x}")


@pytest.mark.parametrize(("switch", "merged"), [("1\n", True), ("0\n", False), (None, False)])
def test_what_is_allocated_meanwhile_is_merged_where_the_kernel_merges(
    tmp_path: Path, switch: str | None, merged: bool
) -> None:
    if switch is not None:
        (tmp_path / "run").write_text(switch)
    before = np.ones(2**23, np.uint8)
    with mergeable(tmp_path / "run"):
        weights = np.ones(2**23, np.uint8)
    after = np.ones(2**26, np.uint8)
    found = ["mg" in flags_at(array.ctypes.data + 2**22) for array in (weights, after)]
    assert found == [merged, False]
    assert before.sum() == weights.sum(), "what is in it stays"
