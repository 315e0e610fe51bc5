"""Whether a page of a file is in the page cache, for tests. Linux alone."""

import errno
import os
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
