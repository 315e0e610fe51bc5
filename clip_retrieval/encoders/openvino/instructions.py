"""What the kernel says of the instructions of this CPU."""

import re
from collections.abc import Collection
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INTEL, AMX = "GenuineIntel", "amx_bf16"


def bfloat16_is_fast(cpuinfo: Path = CPUINFO, *, without: Collection[str] = ()) -> bool:
    """Whether a CPU that has instructions for bfloat16 multiplies it faster than float32. True where nothing is known.

    Intel's does with AMX alone, which a virtual machine may lack: its AVX-512 multiplies bfloat16 at 0.6 of the speed
    of float32 (``make bench-isa``, ``docs/serving.md``). ``without`` are flags that are not counted.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return True
    vendor, flags = (re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE) for name in ("vendor_id", "flags"))
    if vendor is None or flags is None:
        return True
    return vendor[1].strip() != INTEL or AMX in {*flags[1].split()} - {*without}
