"""One versioned folder that can answer queries alone: encoder, vectors, indexes, records and a manifest.

    manifest.json       what it is, and the SHA-256 of every other file
    encoder/            the encoder that made the vectors
    images.npy          image vectors, float32 (images, dim); row i is row i of the records
    captions.npy        caption vectors, float32 (captions, dim); likewise
    images.faiss …      an index where it is more than the vectors themselves
    records.sqlite      the records
    thumbnails.sqlite   small images for people, where the build made them

An artifact is immutable. It is written beside its place and renamed into it, so half of one never has its name. It
refuses to open when a file is missing or changed, when another schema version wrote it, and it refuses an encoder
with another fingerprint than the one that made its vectors.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from clip_retrieval import __version__
from clip_retrieval.artifacts.record_store import Store
from clip_retrieval.artifacts.thumbnails import FORMAT, Thumbnails
from clip_retrieval.encoders import load_encoder
from clip_retrieval.encoders.base import Encoder, EncoderInfo, Vectors
from clip_retrieval.errors import ArtifactDamaged, ArtifactNotFound, ArtifactSchema, EncoderMismatch
from clip_retrieval.indexes.base import BuiltIndex
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.records import Modality

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"
ENCODER = "encoder"
RECORDS = "records.sqlite"
THUMBNAILS = "thumbnails.sqlite"
LIBRARIES = ("faiss-cpu", "numpy", "pillow", "open_clip_torch", "torch", "openvino")


class DataInfo(BaseModel):
    """What a manifest says of the collection."""

    model_config = ConfigDict(frozen=True)

    name: str
    fingerprint: str
    """Hex SHA-256 over the validated records in order."""
    images: int
    captions: int
    rejected: int
    splits: dict[str, int]
    split_ratios: tuple[float, float, float]
    split_seed: int


class Manifest(BaseModel):
    """The description of an artifact; ``version`` is the same for the same inputs."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    version: str
    created: datetime
    product_version: str
    encoder: EncoderInfo
    data: DataInfo
    images: BuiltIndex
    captions: BuiltIndex
    libraries: dict[str, str]
    files: dict[str, str]
    """Hex SHA-256 by path, with forward slashes, of every file but the manifest."""


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. Parts are read when they are asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Self:
        """Read the manifest in the folder ``path`` and, with ``verify``, check every file against its hash.

        Raises ArtifactNotFound, ArtifactSchema or ArtifactDamaged.
        """
        manifest = read_manifest(path)
        if verify:
            with ThreadPoolExecutor() as pool:
                for _ in pool.map(lambda item: _check_file(path, *item), manifest.files.items()):
                    pass
        return cls(path, manifest)

    def vectors(self, modality: Modality) -> Vectors:
        """The vectors, memory-mapped for reading: float32 (rows, dim)."""
        vectors: Vectors = np.load(self.path / f"{modality}.npy", mmap_mode="r")
        return vectors

    def index(self, modality: Modality) -> FaissIndex:
        built = self.manifest.images if modality == "images" else self.manifest.captions
        return FaissIndex.load(built.spec, self.path / f"{modality}.faiss", self.vectors(modality))

    def store(self) -> Store:
        store = Store.open(self.path / RECORDS)
        store.check()
        if store.counts() != (self.manifest.images.rows, self.manifest.captions.rows):
            raise ArtifactDamaged(f"{self.path} has other numbers of records and vectors; build it again")
        return store

    @property
    def has_thumbnails(self) -> bool:
        return THUMBNAILS in self.manifest.files

    def thumbnails(self) -> Thumbnails | None:
        """The thumbnails; None if the artifact was built without."""
        return Thumbnails.open(self.path / THUMBNAILS) if self.has_thumbnails else None

    def encoder(
        self, *, precision: Literal["auto", "f32", "int8"] | None = None, threads: int | None = None
    ) -> Encoder:
        """Load the encoder inside the artifact; without ``precision`` as it was built: int8 if with that, else auto.

        Raises ModelUnavailable, MissingExtra or EncoderMismatch.
        """
        built: Literal["int8", "auto"] = "int8" if "int8" in self.manifest.encoder.precisions else "auto"
        encoder = load_encoder(self.path / ENCODER, precision=precision or built, threads=threads)
        self.require(encoder)
        return encoder

    def require(self, encoder: Encoder) -> None:
        """Raise EncoderMismatch unless ``encoder`` is the one that made the vectors."""
        if encoder.info.fingerprint != self.manifest.encoder.fingerprint:
            raise EncoderMismatch(
                f"the vectors were made by {self.manifest.encoder.name} "
                f"({self.manifest.encoder.fingerprint[:12]}), not by {encoder.info.name} "
                f"({encoder.info.fingerprint[:12]}); use the artifact's own encoder or build again"
            )


def artifact_version(encoder: EncoderInfo, data: DataInfo, recall: float, *, thumbnails_mb: int = 0) -> str:
    """The version that a build from these inputs has: 16 hex digits."""
    inputs = [SCHEMA_VERSION, encoder.model_dump(mode="json"), data.model_dump(mode="json"), recall]
    if thumbnails_mb:
        inputs.append({"thumbnails_mb": thumbnails_mb, "format": FORMAT})
    return _json_hash(inputs)[:16]


def tuned_version(encoder: EncoderInfo, data: DataInfo, images: BuiltIndex, captions: BuiltIndex) -> str:
    """The version of an artifact whose indexes were chosen to a budget: the same for the same choice."""
    specs = (images.spec, captions.spec)
    chosen = [[spec.factory, spec.build_parameters, spec.search_parameters, spec.depth] for spec in specs]
    inputs = [SCHEMA_VERSION, encoder.model_dump(mode="json"), data.model_dump(mode="json"), chosen]
    return _json_hash(inputs)[:16]


def write_artifact(
    target: Path,
    *,
    version: str,
    encoder: EncoderInfo,
    data: DataInfo,
    images: BuiltIndex,
    captions: BuiltIndex,
    fill: Callable[[Path], None],
) -> Artifact:
    """Make the artifact ``target``: ``fill`` writes every file but the manifest into a folder beside it.

    The folder gets its name only when it is complete; one that was there is replaced.
    """
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    for abandoned in target.parent.glob(f"{target.name}.partial-*"):
        shutil.rmtree(abandoned)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        manifest = Manifest(
            version=version,
            created=datetime.now(UTC).replace(microsecond=0),
            product_version=__version__,
            encoder=encoder,
            data=data,
            images=images,
            captions=captions,
            libraries=_library_versions(),
            files={
                path.relative_to(partial).as_posix(): _sha256(path)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        )
        body = manifest.model_dump(mode="json")
        (partial / MANIFEST).write_text(json.dumps({"sha256": _json_hash(body), "manifest": body}, indent=2))
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Artifact(target, manifest)


def read_manifest(path: Path) -> Manifest:
    """The manifest in the folder ``path``. Raises ArtifactNotFound, ArtifactSchema or ArtifactDamaged."""
    try:
        outer = json.loads((path / MANIFEST).read_bytes())
        inner = outer["manifest"]
        version = inner["schema_version"]
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"{path} is not an artifact (it has no {MANIFEST}); build one first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactDamaged(f"{path / MANIFEST} cannot be read; restore or build the artifact again") from error
    if version != SCHEMA_VERSION:
        raise ArtifactSchema(
            f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}; build it again"
        )
    try:
        manifest = Manifest.model_validate(inner)
    except ValidationError as error:
        raise ArtifactDamaged(f"{path / MANIFEST} is damaged; restore or build the artifact again") from error
    if outer.get("sha256") != _json_hash(inner):
        raise ArtifactDamaged(f"{path / MANIFEST} differs from its own hash; restore or build the artifact again")
    return manifest


def _check_file(folder: Path, name: str, expected: str) -> None:
    path = folder / name
    if not path.is_file():
        raise ArtifactDamaged(f"{path} is missing; restore or build the artifact again")
    if _sha256(path) != expected:
        raise ArtifactDamaged(f"{path} differs from its hash in the manifest; restore or build the artifact again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
