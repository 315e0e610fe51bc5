"""The original files of a build's images are read once more and kept, each under the hash of its bytes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.manifest_file import json_sha256
from clip_retrieval.artifacts.originals import FilePart
from clip_retrieval.build.seen_files import SeenFiles, decoded
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.parallel import map_ahead
from clip_retrieval.progress import Advance
from clip_retrieval.records import ValidImage

AHEAD = 8
"""Files that are held in memory at once."""


@dataclass(frozen=True)
class GatheredOriginals:
    """Originals as single files in ``folder``, named by their SHA-256; ``digests`` has that of each image, in order."""

    folder: Path
    digests: Sequence[str]
    bytes: int
    """Of all different ones."""

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of which image has which original."""
        return json_sha256(list(self.digests))

    def find(self, digest: str) -> FilePart | None:
        """Where an original is."""
        path = self.folder / digest
        return FilePart(path, 0, path.stat().st_size) if path.exists() else None

    def note(self) -> str:
        """A line for people."""
        return f"originals: {len(set(self.digests))} files, {self.bytes / 1e6:,.1f} MB, kept in the artifact"


def gather_originals(
    images: Sequence[ValidImage], folder: Path, limits: Limits, seen: SeenFiles | None, advance: Advance
) -> GatheredOriginals:
    """Put the originals of ``images`` into ``folder``, which may have some of an earlier run.

    Raises SourceError for a file that is no longer the image that was validated.
    """
    folder.mkdir(exist_ok=True)
    sizes: dict[str, int] = {}
    digests = []
    for digest, size in map_ahead(lambda image: _gather(image, folder, limits, seen), images, ahead=AHEAD):
        digests.append(digest)
        sizes[digest] = size
        advance(1)
    return GatheredOriginals(folder, digests, sum(sizes.values()))


class OriginalHashes:
    """The hashes of the files of images, each read once as long as ``seen`` knows that it has not changed."""

    def __init__(self, limits: Limits, seen: SeenFiles) -> None:
        self._limits, self._seen = limits, seen
        self._known: dict[tuple[object, ...], str] = {}

    def of(self, images: Sequence[ValidImage], advance: Advance) -> dict[str, str]:
        """The hex SHA-256 of the file of each image, by image_id. Raises SourceError for one that is gone meanwhile."""
        found = {}
        for image, digest in zip(images, map_ahead(self._hash, images, ahead=AHEAD), strict=True):
            found[image.image_id] = digest
            advance(1)
        return found

    def _hash(self, image: ValidImage) -> str:
        stamp = self._seen.stamp(image.blob, self._limits)
        digest = None if stamp is None else self._known.get(stamp)
        if digest is None:
            try:
                digest = hashlib.sha256(image.blob.read(self._limits.max_bytes)).hexdigest()
            except ImageRejected as error:
                raise SourceError(f"{image.blob.name} is no longer the image that was validated: {error}") from error
            if stamp is not None:
                self._known[stamp] = digest
        return digest


def _gather(image: ValidImage, folder: Path, limits: Limits, seen: SeenFiles | None) -> tuple[str, int]:
    name = image.blob.name
    try:
        data = image.blob.read(limits.max_bytes)
        facts = None if seen is None else seen.get(seen.key(data, name, limits))
        if facts is None:
            facts, _ = decoded(data, limits, name)
    except ImageRejected as error:
        raise SourceError(f"{name} is no longer the image that was validated: {error}") from error
    if facts.content_hash != image.content_hash:
        raise SourceError(f"{name} is no longer the image that was validated: its pixels are others; build again")
    digest = hashlib.sha256(data).hexdigest()
    target = folder / digest
    if not target.exists():
        partial = folder / f"{digest}.{id(image)}.partial"
        partial.write_bytes(data)
        partial.replace(target)
    return digest, len(data)
