"""One versioned folder that can answer queries alone: encoder, vectors, indexes, records and a manifest.

    manifest.json            what the artifact is, and the SHA-256 of every other file
    encoder/                 the encoder that made the vectors
    images.npy               image vectors, float32 (images, dim); row i is row i of the records
    captions.npy             caption vectors, float32 (captions, dim); row i is row i of the records
    images.faiss …           an index that is more than the vectors themselves
    records.sqlite           the records
    caption_image_rows.npy   the image row of every caption, int32 (captions,)
    content_numbers.npy      a number for every image, int32 (images,); equal for equal pixels
    columns/                 split and metadata of every image, column by column
    words/                   which images and captions have a word, unless an earlier release wrote the artifact
    confidence.json          the share of right answers by cosine, unless an earlier release wrote the artifact
    thumbnails.sqlite        small images for people, unless the build made none
    originals.npy, originals/  the original files, if the build kept them

An artifact is immutable. It does not open when a file is missing or changed, or when another schema version wrote it,
and it refuses an encoder with another fingerprint than that of the encoder that made its vectors. Nothing that grows
with the collection is parsed, or held as Python objects, when it opens: arrays are memory-mapped.
"""

import os
import sqlite3
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.columns import DESCRIPTION, StoredColumn, open_columns
from clip_retrieval.artifacts.confidence import CONFIDENCE, Curves, read_curves
from clip_retrieval.artifacts.manifest import Manifest, file_sha256, read_manifest
from clip_retrieval.artifacts.originals import ORIGINAL_HASHES, Originals, is_bucket
from clip_retrieval.artifacts.record_arrays import CAPTION_IMAGE_ROWS, COLUMNS, CONTENT_NUMBERS, open_array
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.thumbnails import Thumbnails
from clip_retrieval.artifacts.vector_file import are_finite, not_finite, open_vectors, read_vectors
from clip_retrieval.artifacts.words import DATABASE, WORDS, StoredWords
from clip_retrieval.encoders import INFO_FILE, load_encoder
from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, EncoderMismatch
from clip_retrieval.images.shrink import Plan
from clip_retrieval.indexes.base import BuiltIndex, VectorIndex
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.milvus_index import open_milvus
from clip_retrieval.records import MODALITIES, Modality

ENCODER = "encoder"
RECORDS = "records.sqlite"
THUMBNAILS = "thumbnails.sqlite"
INDEX_URI = "BENTO_CLIP_INDEX_URI"
"""The variable that says where Milvus is, with user and password if it has them; a manifest has neither."""
VECTORS: Mapping[Modality, str] = {"images": "images.npy", "captions": "captions.npy"}
"""The files of vectors. An artifact that Milvus searches may be without both."""
NEEDED = (
    RECORDS,
    CAPTION_IMAGE_ROWS,
    CONTENT_NUMBERS,
    f"{COLUMNS}/{DESCRIPTION}",
    f"{ENCODER}/{INFO_FILE}",
)
"""The files that every artifact has."""


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. Each part is read when it is asked for."""

    path: Path
    manifest: Manifest
    index_uri: str | None = field(default_factory=lambda: os.environ.get(INDEX_URI) or None, repr=False)
    """Where the Milvus of its indexes is; None means where the manifest says."""

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Self:
        """Read the manifest in the folder ``path`` and, with ``verify``, check every file against its hash.

        Originals are checked when they are given out: they may be a thousand times as large as all the rest.
        Raises ArtifactNotFound, ArtifactSchema or ArtifactDamaged.
        """
        manifest = read_manifest(path)
        artifact = cls(path, manifest)
        if verify:
            artifact.check_files([name for name in manifest.files if not is_bucket(name)])
        return artifact

    @classmethod
    def open_whole(cls, path: Path) -> Self:
        """``open`` and ``check_originals``: for one that is to stand in for the same artifact made again."""
        artifact = cls.open(path)
        artifact.check_originals()
        return artifact

    @classmethod
    def open_checked(cls, path: Path) -> Self:
        """``open`` and ``check_contents``: a hash says that a file is the one that was written, not that it is good."""
        artifact = cls.open(path)
        artifact.check_contents(values=False)
        return artifact

    def check_files(self, names: Collection[str], *, threads: int | None = None) -> None:
        """Check those of these files that the manifest names against their hashes, and the values of vectors.

        Raises ArtifactDamaged.
        """
        expected = [(name, digest) for name, digest in self.manifest.files.items() if name in names]
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda item: _check_file(self.path, *item), expected):
                pass

    def check_originals(self) -> None:
        """Check the files of originals, which ``open`` leaves out, against their hashes. Raises ArtifactDamaged."""
        self.check_files(list(filter(is_bucket, self.manifest.files)))

    def check_contents(self, *, indexes: bool = True, values: bool = True) -> None:
        """Raise ArtifactDamaged unless the files that answers need are there and fit each other and the manifest.

        The encoder is not loaded, and without ``indexes`` no index is. Every vector is read once, unless ``values`` is
        false: ``check_files`` has seen them.
        """
        needed = NEEDED if self.is_in_milvus and not self.has_vectors else (*VECTORS.values(), *NEEDED)
        if missing := [name for name in needed if name not in self.manifest.files]:
            raise ArtifactDamaged(f"{self.path} lacks {missing[0]}: its manifest does not name it; build it again")
        with closing(self.store()) as store:
            store.check()
        for modality in MODALITIES:
            if indexes:
                self.index(modality)
            if self.has_vectors:
                vectors = self.vectors(modality)
                if values and not are_finite(vectors):
                    raise not_finite(self.path / VECTORS[modality])
        rows = self.caption_image_rows()
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.manifest.images.rows):
            raise ArtifactDamaged(f"{self.path / CAPTION_IMAGE_ROWS} names images that are not there; build it again")
        self.content_numbers()
        self.columns()
        self.curves()
        if (words := self.words()) is not None:
            with closing(words):
                words.check()
        if (thumbnails := self.thumbnails()) is not None:
            thumbnails.close()
        self.originals()
        for name in filter(is_bucket, self.manifest.files):
            if not (self.path / name).is_file():
                raise ArtifactDamaged(f"{self.path / name} is missing; restore or build the artifact again")

    def size(self) -> int:
        """The bytes of all its files. One that is missing counts nothing."""
        files = [self.path / name for name in self.manifest.files]
        return sum(file.stat().st_size for file in files if file.is_file())

    def files_read_by_rows(self) -> list[Path]:
        """The files in which searches look at single rows, anywhere: records, vectors, unless a search compares all of
        them, and codes that give scores."""
        names = [RECORDS]
        for modality in MODALITIES:
            spec = self._built(modality).spec
            names += [] if spec.exact else [VECTORS[modality]]
            names += [self._index_name(modality)] if spec.scores == "codes" else []
        return [self.path / name for name in names]

    def index_files(self) -> list[Path]:
        """The files of indexes that are more than the vectors themselves."""
        return [self.path / name for name in map(self._index_name, MODALITIES) if name in self.manifest.files]

    @staticmethod
    def _index_name(modality: Modality) -> str:
        return f"{modality}.faiss"

    def vectors(self, modality: Modality) -> Vectors:
        """The vectors, memory-mapped for reading: float32 (rows, dim).

        Raises ArtifactDamaged for any other array, ArtifactError if they are in Milvus alone.
        """
        if self.is_in_milvus and not self.has_vectors:
            raise ArtifactError(
                f"{self.path} has no vectors, they are in Milvus: it can be served, and nothing else; take the "
                "artifact that it was exported from"
            )
        spec = self._built(modality).spec
        return open_vectors(self.path / VECTORS[modality], spec.rows, spec.dim)

    @property
    def has_vectors(self) -> bool:
        """Whether its vectors are among its files."""
        return any(name in self.manifest.files for name in VECTORS.values())

    @property
    def is_in_milvus(self) -> bool:
        """Whether Milvus searches."""
        return self.manifest.images.spec.engine == "milvus"

    @property
    def milvus(self) -> str:
        """Where the Milvus of its indexes is. Raises ArtifactDamaged where nothing says so."""
        place = self.index_uri or self.manifest.images.spec.uri
        if place is None:
            raise ArtifactDamaged(f"nothing says where the Milvus of {self.path} is; set {INDEX_URI}")
        return place

    def index(self, modality: Modality) -> VectorIndex:
        """The index over the vectors. Milvus is asked by the first search. Raises ArtifactDamaged or MissingExtra."""
        if self.is_in_milvus:
            vectors = self.vectors(modality) if self.has_vectors else None
            return open_milvus(self._built(modality).spec, vectors, self.milvus)
        return self.faiss_index(modality)

    def faiss_index(self, modality: Modality) -> FaissIndex:
        """The index over the vectors, where FAISS searches. Raises ArtifactDamaged."""
        return FaissIndex.load(
            self._built(modality).spec, self.path / self._index_name(modality), self.vectors(modality)
        )

    def _built(self, modality: Modality) -> BuiltIndex:
        return self.manifest.images if modality == "images" else self.manifest.captions

    def store(self) -> RecordStore:
        """The records, open for reading. Raises ArtifactDamaged when vectors and records differ in number."""
        store = RecordStore.open(self.path / RECORDS)
        try:
            ends = store.row_ends()
        except sqlite3.Error as error:
            store.close()
            raise ArtifactDamaged(f"{self.path / RECORDS} holds no records ({error}); build it again") from error
        if ends != (self.manifest.images.rows, self.manifest.captions.rows):
            store.close()
            raise ArtifactDamaged(f"{self.path} has other numbers of records and vectors; build it again")
        return store

    def caption_image_rows(self) -> NDArray[np.int32]:
        """The image row of every caption, memory-mapped: shape (captions,). Raises ArtifactDamaged."""
        return open_array(self.path / CAPTION_IMAGE_ROWS, self.manifest.captions.rows)

    def content_numbers(self) -> NDArray[np.int32]:
        """A number for every image, memory-mapped: shape (images,). Images of equal pixels have equal numbers.

        Raises ArtifactDamaged.
        """
        return open_array(self.path / CONTENT_NUMBERS, self.manifest.images.rows)

    def columns(self) -> list[StoredColumn]:
        """The metadata columns by name, then the split, memory-mapped. Raises ArtifactDamaged."""
        return open_columns(self.path / COLUMNS, self.manifest.images.rows)

    def curves(self) -> Curves | None:
        """The share of right answers by cosine; None if an earlier release wrote it. Raises ArtifactDamaged."""
        return read_curves(self.path) if CONFIDENCE in self.manifest.files else None

    @property
    def has_words(self) -> bool:
        """Whether it knows which rows have a word; it does not if an earlier release wrote it."""
        return f"{WORDS}/{DATABASE}" in self.manifest.files

    def words(self) -> StoredWords | None:
        """Which rows have a word, open for reading; None if it does not know. Raises ArtifactDamaged."""
        if not self.has_words:
            return None
        rows = {target: self._built(target).rows for target in MODALITIES}
        return StoredWords.open(self.path / WORDS, rows)

    def word_columns(self) -> tuple[str, ...] | None:
        """The metadata columns that its build named for words; None for those of text. Raises ArtifactDamaged."""
        words = self.words()
        if words is None:
            return None
        with closing(words):
            return words.columns

    @property
    def has_thumbnails(self) -> bool:
        """Whether there are small images for people."""
        return THUMBNAILS in self.manifest.files

    def thumbnails(self) -> Thumbnails | None:
        """The thumbnails; None if the artifact was built without them."""
        return Thumbnails.open(self.path / THUMBNAILS) if self.has_thumbnails else None

    @property
    def has_originals(self) -> bool:
        """Whether the original files of the images are kept."""
        return ORIGINAL_HASHES in self.manifest.files

    def originals(self) -> Originals | None:
        """The original files; None if the artifact was built without them. Raises ArtifactDamaged."""
        return Originals.open(self.path, self.manifest.images.rows) if self.has_originals else None

    def thumbnail_plan(self) -> Plan | None:
        """How the thumbnails were made; None if the artifact was built without them."""
        thumbnails = self.thumbnails()
        if thumbnails is None:
            return None
        with closing(thumbnails):
            return thumbnails.plan

    def encoder(
        self, *, precision: Literal["auto", "f32", "int8"] | None = None, threads: int | None = None
    ) -> Encoder:
        """Load the encoder inside the artifact.

        ``precision`` None means int8 if the encoder was quantised when it was built, else auto.

        Raises ModelUnavailable, MissingExtra or EncoderMismatch.
        """
        built: Literal["int8", "auto"] = "int8" if "int8" in self.manifest.encoder.precisions else "auto"
        encoder = load_encoder(self.path / ENCODER, precision=precision or built, threads=threads)
        self.check_encoder(encoder)
        return encoder

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise EncoderMismatch unless ``encoder`` made the vectors."""
        if encoder.info.fingerprint != self.manifest.encoder.fingerprint:
            raise EncoderMismatch(
                f"the vectors were made by {self.manifest.encoder.name} "
                f"({self.manifest.encoder.fingerprint[:12]}), not by {encoder.info.name} "
                f"({encoder.info.fingerprint[:12]}); use the artifact's own encoder or build again"
            )


def _check_file(folder: Path, name: str, expected: str) -> None:
    path = folder / name
    if not path.is_file():
        raise ArtifactDamaged(f"{path} is missing; restore or build the artifact again")
    digest, finite = read_vectors(path) if name in VECTORS.values() else (file_sha256(path), True)
    if digest != expected:
        raise ArtifactDamaged(f"{path} differs from its hash in the manifest; restore or build the artifact again")
    if not finite:
        raise not_finite(path)
