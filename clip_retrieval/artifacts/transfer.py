"""An artifact as one file, to carry it to another machine, and back.

The file is a plain tar archive: the manifest first, then the files that it names, in order, without owners or times,
so that two exports of an artifact are equal byte for byte. It is not compressed: weights and vectors hardly shrink.

An import believes nothing but the manifest's hashes. Only regular files that the manifest names are read, each is
hashed while it is written, and the folder gets its name when all of them are right: a damaged, cut or crafted file
leaves nothing behind and can write nowhere else.
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from clip_retrieval.artifacts.artifact import MANIFEST, Artifact, Manifest, read_manifest
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.progress import Advance

CHUNK = 2**20
MAX_MANIFEST_BYTES = 16 * 2**20
VERSION = "[0-9a-f]{16}"

"""Takes the number of bytes that have gone through since its last call."""


def export_artifact(artifact: Artifact, file: Path, advance: Advance) -> None:
    """Write an artifact to the new file ``file``, which has that name only once it is complete.

    The artifact's files must have been verified. Raises FileExistsError.
    """
    if file.exists():
        raise FileExistsError(f"{file} exists already; name a new file")
    partial = file.with_name(f"{file.name}.partial-{os.getpid()}")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in (MANIFEST, *sorted(artifact.manifest.files)):
                path = artifact.path / name
                member = tarfile.TarInfo(name)
                member.size = path.stat().st_size
                with path.open("rb") as source:
                    archive.addfile(member, _Counting(source, advance))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def import_artifact(file: Path, folder: Path, advance: Advance) -> Artifact:
    """Read what ``export_artifact`` wrote into the new folder ``folder``, and check every byte of it.

    Raises ArtifactDamaged when it is anything else, ArtifactSchema when another schema version wrote it.
    """
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        with tarfile.open(file, "r:") as archive:
            manifest = _read(archive, file, partial, advance)
        partial.replace(folder)
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactDamaged(f"{file} is damaged or no exported artifact ({error}); export it again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Artifact(folder, manifest)


def _read(archive: tarfile.TarFile, file: Path, folder: Path, advance: Advance) -> Manifest:
    first = archive.next()
    if first is None or first.name != MANIFEST or not _is_plain(first) or first.size > MAX_MANIFEST_BYTES:
        raise ArtifactDamaged(f"{file} is no exported artifact: it does not begin with a {MANIFEST}")
    _write(archive, first, folder / MANIFEST, advance)
    manifest = read_manifest(folder)
    if not re.fullmatch(VERSION, manifest.version):
        raise ArtifactDamaged(f"{file} has a version that no build gives ({manifest.version!r}); it is not used")
    left = dict(manifest.files)
    for name in left:
        _require_inside(name, file)
    while (member := archive.next()) is not None:
        expected = left.pop(member.name, None)
        if expected is None or not _is_plain(member):
            raise ArtifactDamaged(f"{file} holds {member.name}, which its manifest does not name; it is not used")
        if _write(archive, member, folder / member.name, advance) != expected:
            raise ArtifactDamaged(f"{member.name} in {file} differs from its hash in the manifest; export it again")
    if left:
        raise ArtifactDamaged(f"{file} lacks {next(iter(left))}; export it again")
    return manifest


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, advance: Advance) -> str:
    """Write one member to ``target``; the hex SHA-256 of what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    source = archive.extractfile(member)
    assert source is not None
    with source, target.open("xb") as output:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            output.write(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Whether a member is a regular file whose bytes are all there; a sparse one would unpack to any size."""
    return member.isreg() and not member.issparse()


def _require_inside(name: str, file: Path) -> None:
    """Refuse a name that is not a plain relative path, on any system, or that is the manifest's own."""
    parts = PurePosixPath(name).parts
    plain = parts and "/".join(parts) == name and not name.startswith("/") and ".." not in parts
    if not plain or name == MANIFEST or any(character in name for character in "\\:\0"):
        raise ArtifactDamaged(f"{file} names a file outside an artifact ({name!r}); it is not used")


class _Counting(io.RawIOBase):
    """A file that says how much of it has been read."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._advance(len(data))
        return len(data)
