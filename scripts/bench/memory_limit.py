"""A real limit of memory for a child process: a control group, whose page cache counts too. Linux alone.

Resource limits of a process (``RLIMIT_AS``) count addresses, not memory, and know nothing of the page cache. A control
group does (https://docs.kernel.org/admin-guide/cgroup-v1/memory.html): a page of a file is charged to the group that
reads it first. So files that the process is to read are dropped from the page cache before.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.cores import CGROUP_ROOT


@dataclass(frozen=True)
class MemoryGroup:
    """A control group with a limit."""

    folder: Path

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command in the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def peak_mb(self) -> float:
        """The most that the group has held, page cache counted, in MB (10⁶ bytes)."""
        names = ("memory.peak", "memory.max_usage_in_bytes")
        file = next(self.folder / name for name in names if (self.folder / name).exists())
        return int(file.read_text()) / 1e6

    def held_mb(self) -> float:
        """What the processes of the group hold and the kernel cannot take back: no pages of files."""
        stat = self._stat()
        return (stat["anon"] if "anon" in stat else stat["rss"]) / 1e6

    def disk_reads(self) -> int:
        """How often a process of the group has waited for a page from the disk."""
        return self._stat()["pgmajfault"]

    def _stat(self) -> dict[str, int]:
        """Both versions of control groups: ``rss`` of version 1 is ``anon`` of version 2."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}


@contextmanager
def memory_group(limit_mb: float) -> Iterator[MemoryGroup]:
    """A control group inside that of this process which may hold ``limit_mb`` MB (10⁶ bytes); removed afterwards.

    Raises SystemExit where none can be made.
    """
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    root, inside, limit = (
        (CGROUP_ROOT / "memory", own["memory"], "memory.limit_in_bytes")
        if "memory" in own
        else (CGROUP_ROOT, own.get("", "/"), "memory.max")
    )
    folder = root / inside.lstrip("/") / f"bento-clip-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise SystemExit(f"a limit of memory needs a control group, and none can be made here: {error}") from error
    try:
        try:
            (folder / limit).write_text(str(int(limit_mb * 1e6)))
        except OSError as error:
            raise SystemExit(f"the control group {folder} takes no limit of memory: {error}") from error
        yield MemoryGroup(folder)
    finally:
        folder.rmdir()
