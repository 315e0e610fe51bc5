"""Prints facts about the inside of a running container as JSON.

``image_test.py`` runs it there through standard input.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

UNWANTED = ("torch", "torchvision", "open_clip", "transformers", "timm", "nncf")
TOOLS = ("cc", "gcc", "g++", "make", "git", "uv")
CACHES = ("/root/.cache", "/home/bentoml/.cache", "/var/cache/apt/archives", "/var/lib/apt/lists")


def writable(folder: str) -> bool:
    try:
        path = Path(folder, "written-by-a-test")
        path.touch()
        path.unlink()
    except OSError:
        return False
    return True


def memory_bytes() -> int:
    """Proportional set size of every process here but this one: shared pages count once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:  # the process has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def cpu_s() -> float:
    """Seconds of processor time that every process here but this one has used, those that have ended too."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()):
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # the process has ended
                continue
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def cached(folder: str) -> bool:
    """Whether a cache folder holds files; one that this user may not look into does not count."""
    return any(files for _, _, files in os.walk(folder))


def facts() -> dict[str, Any]:
    return {
        "user": os.getuid(),
        "root_writable": [folder for folder in ("/", "/home/bentoml", "/app", "/var/tmp") if writable(folder)],
        "tmp_writable": writable("/tmp"),
        "packages": [name for name in UNWANTED if importlib.util.find_spec(name)],
        "tools": [name for name in TOOLS if shutil.which(name)],
        "caches": [folder for folder in CACHES if cached(folder)],
        "memory_bytes": memory_bytes(),
        "cpu_s": cpu_s(),
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
