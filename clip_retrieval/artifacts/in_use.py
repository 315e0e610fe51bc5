"""Whether a process has an artifact open, so that no clean-up deletes what is being served.

Who opens an artifact for longer holds a shared lock of the kernel (``flock``) on its manifest. It ends with the
process, also when that is killed, and holds across containers that share the folder.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import finalize

from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.errors import ArtifactNotFound


class InUse:
    """The artifact in ``folder`` is in use until ``close``, or as long as this object lives."""

    def __init__(self, folder: Path) -> None:
        """Raises ArtifactNotFound if the artifact is gone. Where the file system has no locks, nothing is held."""
        manifest = folder / MANIFEST
        try:
            descriptor = os.open(manifest, os.O_RDONLY)
        except OSError as error:
            raise ArtifactNotFound(f"{folder} is not an artifact ({error.strerror}); build it again") from error
        self._end = finalize(self, os.close, descriptor)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_at(descriptor, manifest):
            self.close()
            raise ArtifactNotFound(f"{folder} has just been deleted; choose another artifact")

    def close(self) -> None:
        """Let go of the artifact."""
        self._end()


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Yield whether no process has the artifact in ``folder`` in use; if so, none can begin to until the block ends.

    False where that cannot be told. A folder without a manifest is no artifact, so nobody uses it.
    """
    try:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
