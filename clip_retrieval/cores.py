"""How many processor cores this process may use: what it was pinned to, and what its container allows.

A container on a large machine often may use two cores of it; an encoder with a thread for every core would then spend
its time waiting.
"""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP_ROOT) -> int:
    """At least 1. The quota of a Linux control group counts in both of the kernel's versions of them."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(pinned, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """Cores' worth of time that the control group gets; infinite without a limit or where none can be read."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # "max" is no number
        return math.inf
