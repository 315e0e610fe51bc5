"""The original files of a collection's images, kept in its artifact.

    originals.npy        uint8 (images, 32): the SHA-256 of the original of each image; zeros where there is none
    originals/000 … fff  the originals whose SHA-256 begins with these digits, in one file

Such a file begins with the number of its originals (little-endian, 4 bytes) and, for each, its SHA-256 and its size in
bytes (8 bytes); then come the originals in the same order, that of the hashes. The same originals give the same files,
so versions of a collection share those in which nothing changed: after a change of 100 images, 97 in 100 of them.

Opening an artifact does not read them: each is compared with its hash when it is given out. Hashes of whole files, in
the manifest, are checked where an artifact is copied from elsewhere.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.array_file import mapped
from clip_retrieval.errors import ArtifactDamaged

ORIGINALS = "originals"
"""The folder of the originals."""
ORIGINAL_HASHES = "originals.npy"
CHUNK = 2**18
DIGITS = 3

_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<32sQ")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a file: ``size`` bytes from ``start``."""

    path: Path
    start: int
    size: int

    def chunks(self, first: int = 0, size: int | None = None) -> Iterator[bytes]:
        """``size`` of its bytes from number ``first``, by default all. Raises OSError; ends early if the file does."""
        left = self.size - first if size is None else size
        with self.path.open("rb") as file:
            file.seek(self.start + first)
            while left > 0 and (data := file.read(min(CHUNK, left))):
                left -= len(data)
                yield data

    def sha256(self) -> str:
        """Hex SHA-256 of its bytes. Raises OSError."""
        digest = hashlib.sha256()
        for data in self.chunks():
            digest.update(data)
        return digest.hexdigest()


class Original(NamedTuple):
    """An original file: its hex SHA-256, with which its bytes are not compared yet, and where it is."""

    digest: str
    part: FilePart


class Originals:
    """The originals of an artifact. Immutable; any thread may read."""

    def __init__(self, folder: Path, hashes: NDArray[np.uint8]) -> None:
        self._folder, self._hashes = folder, hashes

    @classmethod
    def open(cls, folder: Path, rows: int) -> "Originals":
        """The originals in the folder of an artifact with so many images. Raises ArtifactDamaged."""
        path = folder / ORIGINAL_HASHES
        try:
            hashes = mapped(path)
        except (OSError, ValueError, EOFError) as error:
            raise ArtifactDamaged(f"{path} cannot be read ({error}); restore or build the artifact again") from error
        if hashes.dtype != np.uint8 or hashes.shape != (rows, 32):
            raise ArtifactDamaged(
                f"{path} has {hashes.dtype} {hashes.shape} instead of uint8 ({rows}, 32); build the artifact again"
            )
        return cls(folder, hashes)

    def hash_of(self, row: int) -> str | None:
        """Hex SHA-256 of the original of the image in this row; None if there is none."""
        digest = self._hashes[row].tobytes()
        return digest.hex() if any(digest) else None

    def hashes(self) -> list[str | None]:
        """``hash_of`` each row."""
        return [self.hash_of(row) for row in range(len(self._hashes))]

    def find(self, digest: str) -> FilePart | None:
        """Where the original with this hex SHA-256 is; None if it is not here. Its bytes are not compared."""
        path = self._folder / bucket_of(digest)
        wanted, at = bytes.fromhex(digest), 0
        try:
            with path.open("rb") as file:
                (count,) = _COUNT.unpack(file.read(_COUNT.size))
                for _ in range(count):
                    found, size = _ENTRY.unpack(file.read(_ENTRY.size))
                    if found == wanted:
                        return FilePart(path, _COUNT.size + count * _ENTRY.size + at, size)
                    at += size
        except (OSError, struct.error):
            return None
        return None

    def buckets(self) -> dict[str, list[str]]:
        """The originals of each file, in order, by its name."""
        return grouped(self.hashes())


def bucket_of(digest: str) -> str:
    """The name of the file that has the original with this hex SHA-256, with a forward slash."""
    return f"{ORIGINALS}/{digest[:DIGITS]}"


def is_bucket(name: str) -> bool:
    """Whether a file of an artifact, by its name there, has originals."""
    return name.startswith(f"{ORIGINALS}/")


def grouped(digests: Iterable[str | None]) -> dict[str, list[str]]:
    """Different hashes in order, by the name of the file that they are in."""
    groups: dict[str, list[str]] = {}
    for digest in sorted({digest for digest in digests if digest is not None}):
        groups.setdefault(bucket_of(digest), []).append(digest)
    return groups


def write_originals(
    folder: Path,
    digests: Sequence[str | None],
    find: Callable[[str], FilePart | None],
    *,
    there: Iterable[str] = (),
    moves: bool = False,
) -> None:
    """Write the originals of an artifact's images, given by row, into its folder; ``find`` says where each is now.

    Files that are ``there``, by name, are left out: a parent has them. With ``moves`` the files that an original was
    all of are deleted once it is written. Raises OSError, and ArtifactDamaged for an original that is not what its hash
    says or that is not found.
    """
    hashes = np.zeros((len(digests), 32), np.uint8)
    for row, digest in enumerate(digests):
        if digest is not None:
            hashes[row] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    np.save(folder / ORIGINAL_HASHES, hashes)
    left_out = set(there)
    (folder / ORIGINALS).mkdir(exist_ok=True)
    for name, group in grouped(digests).items():
        if name not in left_out:
            parts = [(digest, _found(find, digest)) for digest in group]
            _write_bucket(folder / name, parts)
            if moves:
                for _, part in parts:
                    part.path.unlink()


def _found(find: Callable[[str], FilePart | None], digest: str) -> FilePart:
    part = find(digest)
    if part is None:
        raise ArtifactDamaged(f"the original {digest[:16]} is missing; build the artifact again from its source")
    return part


def _write_bucket(path: Path, parts: Sequence[tuple[str, FilePart]]) -> None:
    with path.open("wb") as file:
        file.write(_COUNT.pack(len(parts)))
        for digest, part in parts:
            file.write(_ENTRY.pack(bytes.fromhex(digest), part.size))
        for digest, part in parts:
            copied = hashlib.sha256()
            for data in part.chunks():
                copied.update(data)
                file.write(data)
            if copied.hexdigest() != digest:
                raise ArtifactDamaged(
                    f"an original in {part.path} differs from its hash; build the artifact again from its source"
                )
