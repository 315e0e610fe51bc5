"""An artifact as one file, to carry it to another machine, and back.

The file is a plain tar archive: the manifest first, then the files that it names, in order, without owners or times,
so that two exports of an artifact are equal byte for byte. It is not compressed: weights and vectors hardly shrink.

An import trusts the manifest's hashes alone. It reads only regular files that the manifest names, hashes each while
writing it, and gives the folder its name when all hashes are right. A damaged, truncated or crafted file leaves nothing
behind and writes nowhere else.
"""

import hashlib
import io
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import Manifest, read_manifest
from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.artifacts.model_yaml import MODEL_YAML
from clip_retrieval.atomic import new_file, new_folder
from clip_retrieval.errors import ArtifactDamaged, ArtifactError
from clip_retrieval.progress import Advance
from clip_retrieval.storage import storage

CHUNK = 2**20
MAX_MANIFEST_BYTES = 16 * 2**20
VERSION = "[0-9a-f]{16}"


def export_artifact(artifact: Artifact, file: Path, advance: Advance) -> None:
    """Write an artifact, whose files have been verified, to the new file ``file``.

    ``advance`` is told the number of bytes just written. Raises FileExistsError.
    """
    with (
        storage(file.parent),
        new_file(file) as output,
        tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in (MANIFEST, *sorted(artifact.manifest.files)):
            path = artifact.path / name
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as source:
                archive.addfile(member, _Counting(source, advance))


def import_artifact(file: Path, folder: Path, advance: Advance) -> Artifact:
    """Read a file that ``export_artifact`` wrote into the new folder ``folder``, and check every byte.

    Raises ArtifactDamaged for any other file, ArtifactSchema when another schema version wrote it, FileExistsError when
    ``folder`` exists.
    """
    try:
        with storage(folder), new_folder(folder) as partial, tarfile.open(file, "r:") as archive:
            manifest = _read(archive, file, partial, advance)
            check_contents(Artifact(partial, manifest), str(file))
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactDamaged(
            f"{file} is damaged or not an exported artifact ({error}); export the artifact again"
        ) from error
    return Artifact(folder, manifest)


def _read(archive: tarfile.TarFile, file: Path, folder: Path, advance: Advance) -> Manifest:
    first = archive.next()
    if first is None or first.name != MANIFEST or not _is_plain(first) or first.size > MAX_MANIFEST_BYTES:
        raise ArtifactDamaged(
            f"{file} is not an exported artifact: it does not begin with a {MANIFEST}; choose a file that export wrote"
        )
    _write(archive, first, folder / MANIFEST, advance)
    manifest = read_manifest(folder)
    require_plain(manifest, str(file))
    left = dict(manifest.files)
    while (member := archive.next()) is not None:
        expected = left.pop(member.name, None)
        if expected is None or not _is_plain(member):
            raise ArtifactDamaged(
                f"{file} holds {member.name}, which its manifest does not name; export the artifact again"
            )
        if _write(archive, member, folder / member.name, advance) != expected:
            raise ArtifactDamaged(
                f"{member.name} in {file} differs from its hash in the manifest; export the artifact again"
            )
    if left:
        raise ArtifactDamaged(f"{file} lacks {next(iter(left))}; export the artifact again")
    return manifest


def check_contents(artifact: Artifact, file: str) -> None:
    """Raise ArtifactDamaged if the files, which are as the manifest says, cannot answer queries."""
    try:
        artifact.check_contents()
    except ArtifactError as error:
        reason = str(error).replace(f"{artifact.path}/", "").replace(str(artifact.path), "it")
        raise ArtifactDamaged(f"{file} holds no whole artifact: {reason}") from error


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, advance: Advance) -> str:
    """Write one member to ``target``; returns the hex SHA-256 of its bytes."""
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
    """Whether a member is a regular file with all its bytes; a sparse file would unpack to any size."""
    return member.isreg() and not member.issparse()


def require_plain(manifest: Manifest, file: str) -> None:
    """Raise ArtifactDamaged if a manifest from elsewhere has a version or names that could write outside a folder."""
    if not re.fullmatch(VERSION, manifest.version):
        raise ArtifactDamaged(
            f"{file} has the version {manifest.version!r}, which no build gives; export the artifact again"
        )
    for name in manifest.files:
        _require_inside(name, file)


def _require_inside(name: str, file: str) -> None:
    """Raise ArtifactDamaged unless a name is a plain relative path on every system and not the manifest's own."""
    parts = PurePosixPath(name).parts
    plain = parts and "/".join(parts) == name and not name.startswith("/") and ".." not in parts
    if name == MODEL_YAML:
        raise ArtifactDamaged(f"{file} names {name!r}, which is BentoML's own file; export the artifact again")
    if not plain or name == MANIFEST or any(character in name for character in "\\:\0"):
        raise ArtifactDamaged(f"{file} names a file outside an artifact ({name!r}); do not use it")


class _Counting(io.RawIOBase):
    """A file that reports how many bytes are read."""

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
