"""What of files is in memory: the page cache of the kernel, which counts in the memory of a container, and copies."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

READ_BYTES = 2**20
HUGE_PAGE = 2 * 2**20
"""Bytes. Larger ones of other processors than x86 are as good as none here."""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Says whether a process may ask for them (https://docs.kernel.org/admin-guide/mm/transhuge.html)."""
MADV_HUGEPAGE, MAP_FIXED = 14, 0x10
"""Of Linux (``man 2 madvise``, ``man 2 mmap``); Python has them not on every system, or not at all."""


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
    libc = ctypes.CDLL(None, use_errno=True)
    for mapping in _mappings(files):
        libc.madvise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.size), mmap.MADV_RANDOM)


def copy_to_huge_pages(files: Iterable[Path], *, setting: Path = HUGE_PAGES) -> None:
    """Put copies in memory of this process in the place of what it has mapped of these files, where that is large.

    The kernel maps a file in pages of 4 KiB, and the processor then looks up the place of each one that a search
    reads: after an image was encoded such a search of cells takes two to three times as long as in huge pages
    (``docs/performance-log.md``). Nobody may read the files meanwhile, or write to them at any time. Nothing is done
    where the kernel gives no huge pages, which the file ``setting`` says. Raises OSError for a file that cannot be
    read: its mapping is of no use then.
    """
    try:
        if "[never]" in setting.read_text():
            return
    except OSError:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    for mapping in _mappings(files):
        if mapping.size < HUGE_PAGE:
            continue
        address, size = ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.size)
        with mapping.file.open("rb", buffering=0) as file:
            place = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
            if libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, place, -1, ctypes.c_long(0)) != mapping.start:
                continue  # the mapping is as it was
            libc.madvise(address, size, MADV_HUGEPAGE)
            file.seek(mapping.offset)
            copy = memoryview((ctypes.c_char * mapping.size).from_address(mapping.start)).cast("B")
            copied = 0
            while read := file.readinto(copy[copied:]):
                copied += read
            if copied <= mapping.size - mmap.PAGESIZE:
                raise OSError(f"{mapping.file} has become shorter")


@dataclass(frozen=True)
class _Mapping:
    """A part of a file in the addresses of this process. All in bytes."""

    file: Path
    start: int
    size: int
    offset: int


def _mappings(files: Iterable[Path]) -> list[_Mapping]:
    """Where this process has mapped these files. None anywhere but on Linux."""
    wanted = {str(file.resolve()): file for file in files}
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] in wanted:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            found.append(_Mapping(wanted[fields[5]], start, end - start, int(fields[2], 16)))
    return found
