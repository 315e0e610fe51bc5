"""The original files of added images, beside the log: one file each, named by its SHA-256.

A file is on disk before the change that names it is committed. A compaction takes over those that are still named, and
then all others are deleted here.
"""

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.originals import ORIGINALS, FilePart
from clip_retrieval.atomic import new_file, sync
from clip_retrieval.storage import storage


class KeptOriginals:
    """The originals in the folder of a log. Any thread of any process may read; who writes holds the log's lock."""

    def __init__(self, folder: Path, base: Callable[[], tuple[str, int] | None] = lambda: None) -> None:
        """``folder`` is that of the log; nothing is made there before there is an original. ``base`` is the log's."""
        self._folder, self._base = folder / ORIGINALS, base

    def put(self, data: bytes) -> None:
        """Keep a file. Raises StorageFailed of the kind that applies."""
        target = self._folder / hashlib.sha256(data).hexdigest()
        if target.exists():
            return
        with storage(self._folder):
            if self.is_empty:
                self._folder.mkdir()
                sync(self._folder.parent)
            with new_file(target) as file:
                file.write(data)

    def find(self, digest: str) -> FilePart | None:
        """Where the original with this hex SHA-256 is; None if it is not here."""
        path = self._folder / digest
        try:
            return FilePart(path, 0, path.stat().st_size)
        except OSError:
            return None

    def find_compacted(self, digest: str) -> FilePart | None:
        """Where the artifact of the log's last compaction has the original; None if it has not, or is not stored here.

        It may be that of another service, and one that shares the log with it has the originals from before.
        Raises ArtifactError of the kind that applies.
        """
        base = self._base()
        folder = None if base is None else modelstore.find(base[0])
        originals = None if folder is None else Artifact.open(folder, verify=False).originals()
        return None if originals is None else originals.find(digest)

    @property
    def is_empty(self) -> bool:
        """Whether no original was ever kept here."""
        return not self._folder.exists()

    def keep_only(self, digests: Collection[str]) -> None:
        """Delete all others. Raises StorageFailed of the kind that applies."""
        with storage(self._folder):
            for path in self._folder.iterdir():
                if path.name not in digests:
                    path.unlink(missing_ok=True)
