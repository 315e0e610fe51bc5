"""Versions of a collection share the files that they have in common, above all the encoder: one file, several names.

A hard link is that file itself, so any tool can copy, export or delete a version and the others stay whole. Files of
an artifact never change.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import file_sha256
from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.artifacts.writer import link_or_copy


@dataclass
class Sharing:
    """What became of the files that another version has too."""

    linked: int = 0
    """Bytes that are stored once for both."""
    refused: int = 0
    """Bytes that are stored again, since the file system could not link them."""
    reason: str = ""


@dataclass(frozen=True)
class Shared:
    """The files of several artifacts, by the hash of their content."""

    files: dict[str, list[Path]] = field(default_factory=dict)

    @classmethod
    def of(cls, artifacts: Iterable[Artifact]) -> "Shared":
        """The files that the manifests name; whether they are whole is checked where one is taken."""
        shared = cls()
        for artifact in artifacts:
            for name, digest in artifact.manifest.files.items():
                shared.files.setdefault(digest, []).append(artifact.path / name)
        return shared

    def put(self, artifact: Artifact, folder: Path) -> Sharing:
        """Put every file of ``artifact`` into ``folder``, as another name of an equal file if there is one."""
        sharing = Sharing()
        for name, digest in {MANIFEST: "", **artifact.manifest.files}.items():
            source, target = artifact.path / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not self._link(digest, source, target, sharing):
                link_or_copy(source, target)
        return sharing

    def _link(self, digest: str, source: Path, target: Path, sharing: Sharing) -> bool:
        size = source.stat().st_size
        for known in self.files.get(digest, ()):
            if not (_is_same(known, source) or _is_whole(known, size, digest)):
                continue
            try:
                target.hardlink_to(known)
            except OSError as error:
                sharing.refused += size
                sharing.reason = error.strerror or str(error)
                return False
            sharing.linked += size
            return True
        return False


def sizes(folder: Path) -> tuple[int, int]:
    """The bytes of all files below ``folder``, and those of them that no name outside of it shares.

    What another process deletes meanwhile counts nothing.
    """
    links: dict[tuple[int, int], list[int]] = {}
    total = own = 0
    for path in (Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):
            seen = path.lstat()
            if not stat.S_ISREG(seen.st_mode):
                continue
            total += seen.st_size
            inside = links.setdefault((seen.st_dev, seen.st_ino), [])
            inside.append(seen.st_size)
            own += seen.st_size * (len(inside) == seen.st_nlink)
    return total, own


def _is_same(path: Path, other: Path) -> bool:
    """Whether both are names of one file."""
    try:
        return path.samefile(other)
    except OSError:
        return False


def _is_whole(path: Path, size: int, digest: str) -> bool:
    try:
        return path.stat().st_size == size and file_sha256(path) == digest
    except OSError:
        return False
