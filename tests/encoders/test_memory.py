"""Equal memory of several processes can be kept once, where the kernel's administrator has switched that on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clip_retrieval.encoders.openvino.memory import KSM
from scripts.common.paths import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not KSM.exists(), reason="only some kernels of Linux merge pages"
)

ALLOCATING = """
import json, sys
from pathlib import Path
import numpy as np
from clip_retrieval.encoders.openvino.memory import mergeable

def is_merged(array):
    address, inside = array.ctypes.data + 2**22, False
    for line in Path("/proc/self/smaps").read_text(errors="surrogateescape").splitlines():
        if "-" in (span := line.split(maxsplit=1)[0]) and not span.endswith(":"):
            start, end = (int(part, 16) for part in span.split("-"))
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return "mg" in line.split()

before = np.ones(2**23, np.uint8)
with mergeable(Path(sys.argv[1])):
    weights = np.ones(2**23, np.uint8)
after = np.ones(2**26, np.uint8)
print(json.dumps([is_merged(weights), is_merged(after), int(before.sum()), int(weights.sum())]))
"""
"""What is merged stays so for what gets that memory next, so each case has a process of its own."""


@pytest.mark.parametrize(("switch", "merged"), [("1\n", True), ("0\n", False), (None, False)])
def test_what_is_allocated_meanwhile_is_merged_where_the_kernel_merges(
    tmp_path: Path, switch: str | None, merged: bool
) -> None:
    if switch is not None:
        (tmp_path / "run").write_text(switch)
    command = [sys.executable, "-c", ALLOCATING, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [merged, False, 2**23, 2**23], "what is in it stays"
