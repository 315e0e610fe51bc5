"""When each stage of a start has ended, over the processes of a service.

The processes append lines to one file, which the command has made; nothing is written where nobody asked for a profile.
Times are of ``CLOCK_MONOTONIC``, which the processes of a machine share.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VARIABLE = "BENTOCLIP_START_PROFILE"
"""The environment variable with the path of the file. It has not the prefix of the settings: it is none."""

Process = Literal["command", "supervisor", "worker"]
PROCESSES: tuple[Process, ...] = ("command", "supervisor", "worker")

STAT = Path("/proc/self/stat")
_STARTTIME = 19
"""The place of ``starttime`` in the file behind the name of the process, in ticks since the boot: proc_pid_stat(5)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What one process did between two moments, in seconds since the start of the command."""

    process: Process
    pid: int
    stage: str
    from_s: float
    until_s: float
    processor_s: float
    """Of all threads of the process. On a busy machine it says more than the difference of the moments."""


def mark(process: Process, stage: str) -> None:
    """Note that ``stage`` of this process ends now. It began with the stage before it, or with the process."""
    if VARIABLE in os.environ:
        write(Path(os.environ[VARIABLE]), process, stage)


def write(file: Path, process: Process, stage: str) -> None:
    """What ``mark`` does, with a file that the environment does not name; nothing if the file is gone."""
    line = {
        "process": process,
        "pid": os.getpid(),
        "stage": stage,
        "born": born(),
        "until": time.monotonic(),
        "processor": time.process_time(),
    }
    with suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{json.dumps(line)}\n".encode())
        finally:
            os.close(descriptor)


def born() -> float:
    """When the kernel made this process, to a hundredth of a second; without /proc, its processor time ago."""
    if not STAT.exists():
        return time.monotonic() - time.process_time()
    ticks = int(STAT.read_text(encoding="utf-8").rpartition(")")[2].split()[_STARTTIME])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


def stages(lines: Iterable[str]) -> list[Stage]:
    """The stages of all processes, the command first; of one process in order."""
    marks = [json.loads(line) for line in lines]
    zero = min(one["born"] for one in marks)
    ended: dict[int, tuple[float, float]] = {}
    found = []
    for one in marks:
        until, processor = one["until"] - zero, one["processor"]
        began, before = ended.get(one["pid"], (one["born"] - zero, 0.0))
        times = (round(seconds, 3) for seconds in (began, until, processor - before))
        found.append(Stage(one["process"], one["pid"], one["stage"], *times))
        ended[one["pid"]] = until, processor
    return sorted(found, key=lambda stage: (PROCESSES.index(stage.process), stage.pid, stage.until_s))
