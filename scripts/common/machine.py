"""What a figure was measured on, and with which code."""

import platform
import re
import subprocess
from pathlib import Path

import psutil

from scripts.common.paths import ROOT

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def cpu() -> str:
    """The name of the processor and those of its instructions that matter to an encoder."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    known = [name for name in INSTRUCTIONS if flags and name in flags[1].split()]
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name} ({' '.join(known)})" if known else name


def commit() -> str | None:
    """The commit that is checked out, with a plus if files differ from it; None outside of a repository."""
    try:
        head = _git("rev-parse", "--short", "HEAD").strip()
        return head + ("+" if _git("status", "--porcelain").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def anonymous_mb(pid: int | str = "self") -> float:
    """Resident memory of a process that is no file's, in MB (10⁶ bytes): the kernel cannot drop it. Linux alone."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s*(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def memory(pid: int) -> dict[str, float]:
    """Memory in MB (10⁶ bytes) of the process and all its descendants.

    ``rss_mb`` is resident memory, with shared pages counted once; ``anonymous_mb`` is the part that no file backs,
    which the kernel cannot drop.
    """
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        "rss_mb": sum(process.memory_full_info().pss for process in processes) / 1e6,
        "anonymous_mb": sum(anonymous_mb(process.pid) for process in processes),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
    return done.stdout
