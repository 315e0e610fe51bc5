"""What of files is in memory: the page cache of the kernel, which counts in the memory of a container."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

READ_BYTES = 2**20


def read_through(file: Path) -> None:
    """Read a file that is to be mapped, so that it is in the page cache: what is asked for anywhere in it would wait
    for the disk each time. Nothing is raised for a file that cannot be read: mapping it says why."""
    block = bytearray(READ_BYTES)
    with suppress(OSError), file.open("rb", buffering=0) as opened:
        while opened.readinto(block):
            pass


def drop_pages(files: Iterable[Path]) -> None:
    """Ask the kernel to give back the pages of these files (``posix_fadvise``), where it can be asked.

    It keeps those that a process has mapped and used, and those that are not on the disk yet.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    for file in files:
        with suppress(OSError):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def read_at_random(files: Iterable[Path]) -> None:
    """Tell the kernel that this process looks at single pages of these mapped files, anywhere (``madvise``).

    Else it reads up to 32 pages around each one that it has to read (``read_ahead_kb``), and gives up as many others
    where memory is scarce. Only on Linux.
    """
    wanted = {str(file.resolve()) for file in files}
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] in wanted:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_RANDOM)
