"""The fingerprint of a folder. Needs the standard library only."""

import hashlib
from pathlib import Path


def folder_fingerprint(folder: Path) -> str:
    """Hex SHA-256 over the relative paths and the contents of all files in ``folder``.

    Artifacts hold fingerprints of encoders: a change of this function makes them refuse the encoders they were built
    with.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
