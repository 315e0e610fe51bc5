"""What the kernel says of the instructions of this CPU."""

import re
from collections.abc import Collection
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INTEL, AMX, VNNI = "GenuineIntel", "amx_bf16", "avx512_vnni"


def bfloat16_is_fast(cpuinfo: Path = CPUINFO, *, without: Collection[str] = ()) -> bool:
    """Whether a CPU that has instructions for bfloat16 multiplies it faster than float32. True where nothing is known.

    Intel's does with AMX alone, which a virtual machine may lack: its AVX-512 multiplies bfloat16 at 0.6 of the speed
    of float32 (``make bench-isa``, ``docs/serving.md``). ``without`` are flags that are not counted.
    """
    vendor, flags = _said(cpuinfo, "vendor_id"), _said(cpuinfo, "flags")
    if vendor is None or flags is None:
        return True
    return vendor.strip() != INTEL or AMX in {*flags.split()} - {*without}


def eight_bits_are_fast(cpuinfo: Path = CPUINFO) -> bool:
    """Whether a CPU multiplies numbers of 8 bits more than twice as fast as float32. False where nothing is known.

    With VNNI of AVX-512 it does (``docs/serving.md``). VNNI of AVX2 was never measured.
    """
    return VNNI in (_said(cpuinfo, "flags") or "").split()


def _said(cpuinfo: Path, name: str) -> str | None:
    """What the kernel says below ``name`` of the first core; None if it says nothing."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE)
    return None if found is None else found[1]
