"""Returns memory that OpenVINO needs while it compiles a model and not after it, and has equal memory be kept once.

Measured after loading, in MB (Linux, 2 threads, bfloat16; OpenVINO 2026.4.1):

    model       anonymous          resident in all
    demo        199 → 179          472 → 253
    ViT-B/32    516 → 473          1,410 → 547

``trim_heap`` saves the anonymous memory; ``release_mapping`` saves the rest, which is pages of the weights files. Both
do nothing on systems without the calls.

A compiled graph packs its weights anew in each process, so they are no mapped file's. Where the kernel merges equal
pages (KSM, https://docs.kernel.org/admin-guide/mm/ksm.html), ``mergeable`` lets it: then the workers of a host have
most of them once. A page that somebody writes to is copied before.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MADV_DONTNEED, _MADV_MERGEABLE = 4, 12  # of Linux's <asm-generic/mman-common.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_PACKED_BYTES = 2**16
"""While a graph is compiled, memory of this size and more begins on a page of its own: pages are merged whole."""
_GROWN_BYTES = 2**25
"""glibc's threshold for that in a process which has once freed as much: its greatest."""
_LEAST_MERGED = 2**20
KSM = Path("/sys/kernel/mm/ksm/run")
"""1 where the kernel merges pages. Its administrator switches that on."""


def release_mapping(file: Path) -> None:
    """Let the kernel drop the pages of a memory-mapped file.

    A compiled graph holds its own packed copy of most weights. A page that is needed again is read from the file.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    mapped = str(file.resolve())
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == mapped and fields[1].startswith("r--"):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


@contextmanager
def mergeable(switch: Path = KSM) -> Iterator[None]:
    """Let the kernel merge what is allocated in the context and kept, where it merges pages at all."""
    try:
        merges = sys.platform == "linux" and switch.read_text().strip() == "1"
    except OSError:
        merges = False
    if not merges:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    set_option = getattr(libc, "mallopt", lambda *_: 0)  # glibc alone
    before = dict(_anonymous())
    set_option(_M_MMAP_THRESHOLD, _PACKED_BYTES)
    try:
        yield
    finally:
        set_option(_M_MMAP_THRESHOLD, _GROWN_BYTES)
        set_option(_M_TRIM_THRESHOLD, 2 * _GROWN_BYTES)
        for start, end in _anonymous():
            if before.get(start) != end and end - start >= _LEAST_MERGED:
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_MERGEABLE)


def _anonymous() -> Iterator[tuple[int, int]]:
    """Where each piece of writable memory that is no file's begins and ends."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(maxsplit=5)
        if fields[1] == "rw-p" and (len(fields) == 5 or fields[5] == "[heap]"):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end


def trim_heap() -> None:
    """Return freed heap memory to the system. glibc keeps it otherwise, and only glibc has the call."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
