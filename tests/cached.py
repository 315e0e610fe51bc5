"""What the kernel knows of a file: which pages are cached, and how a mapping is read. Linux alone."""

import errno
import os
import re
from pathlib import Path

import pytest


def is_cached(path: Path, offset: int) -> bool:
    """Whether a page can be read without waiting for the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(16)], offset, os.RWF_NOWAIT) == 16
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this file system does not say what is cached")
        raise
    finally:
        os.close(descriptor)


def flags_of(path: Path) -> list[str]:
    """``VmFlags`` of the mapping of a file (https://docs.kernel.org/filesystems/proc.html)."""
    found = re.search(
        rf"{re.escape(str(path))}\n.*?VmFlags: ([a-z ]+)\n", Path("/proc/self/smaps").read_text(), re.DOTALL
    )
    assert found is not None
    return found[1].split()


def flags_at(address: int) -> list[str]:
    """``VmFlags`` of the mapping that an address lies in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(place[1], 16) <= address < int(place[2], 16)
        elif inside and line.startswith("VmFlags: "):
            return line.split()[1:]
    raise AssertionError("nothing is mapped there")
