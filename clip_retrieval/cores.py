"""How many processor cores this process may use, by its CPU affinity and by the quota of its container.

A container may often use only two cores of a large machine. There, an encoder with a thread for every core of the
machine would spend its time waiting.
"""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP_ROOT) -> int:
    """The number of cores, at least 1. Quotas of Linux control groups count, in version 1 and version 2."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(pinned, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """The quota of the control group, in cores; infinite if there is no limit or the limit cannot be read."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # "max" is not a number
        return math.inf
