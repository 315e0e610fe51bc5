"""A live collection becomes an artifact: its base and its changes in one, without encoding anything.

The records are in the order of the live rows: those of the base that are left, then those that were added. The result
gives the answers of the state that it was made of, as far as the indexes find the same rows; its fields have the types
of the values that are left. Removed images are in no file of it.
"""

import hashlib
import json
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo, compacted_version
from clip_retrieval.artifacts.originals import ORIGINAL_HASHES, grouped, write_originals
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.thumbnails import FORMAT, write_thumbnails
from clip_retrieval.artifacts.writer import Compacted, write_artifact
from clip_retrieval.build.vector_cache import GATHER_ROWS, write_vectors
from clip_retrieval.build.write import choose_indexes
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.indexes.base import IndexSpec, Measurement
from clip_retrieval.indexes.choose import Candidate
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.indexes.measure import LEAST_RECALL
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.progress import Progress
from clip_retrieval.records import MODALITIES, SPLITS, CaptionRecord, ImageRecord, Modality
from clip_retrieval.storage import storage
from clip_retrieval.work_folder import Say, work_folder

Rows = NDArray[np.int64]


def compact(
    state: LiveCollection,
    workspace: Path,
    progress: Progress,
    *,
    log: str | None = None,
    recall: float = LEAST_RECALL,
    say: Say | None = None,
) -> Artifact:
    """Write the artifact of ``state`` into ``workspace``, in a folder named by its version.

    The version follows from the state, so the same state gives the same version; the manifest names the version that
    the changes came after, the number of the last change and ``log``, the id of the log that counted them. The state
    may go on changing meanwhile. Vectors and records are copied in blocks. If another process compacts the same state,
    ``say`` gets a line that names it, and this one waits; without ``say``, raises BuildRunning instead. What is made of
    a base in Milvus is in the same Milvus, in collections of its own. Raises StorageFailed of the kind that applies,
    ArtifactDamaged when a file of the base differs from its hash, IndexAway and MissingExtra where Milvus is needed.
    """
    base = state.artifact
    source = _Source(state)
    encoder, parent = base.manifest.encoder, base.manifest.version
    with progress.stage("reading the records", None):
        data = source.describe(base.manifest.data)
    version = compacted_version(
        encoder, data, recall, parent, state.sequence, has_thumbnails=base.has_thumbnails, log=log
    )
    kept = state.base.originals
    originals = [] if kept is None else source.originals()
    before, after = {} if kept is None else kept.buckets(), grouped(originals)
    unchanged = {name for name, group in after.items() if before.get(name) == group}
    with storage(workspace), work_folder(workspace / f"{version}.compact", say, temporary=True) as work:
        with progress.stage("copying the vectors", None):
            images, captions = (source.write_vectors(target, work / f"{target}.npy") for target in MODALITIES)
        if base.is_in_milvus:
            image_index, caption_index = _unindexed(images), _unindexed(captions)
        else:
            image_index, caption_index = choose_indexes(images, captions, recall, progress)

        def fill(folder: Path) -> None:
            for target in MODALITIES:
                (work / f"{target}.npy").replace(folder / f"{target}.npy")
            image_index.index.save(folder / "images.faiss")
            caption_index.index.save(folder / "captions.faiss")
            with RecordStore.create(folder / RECORDS) as store:
                store.add(source.images(), source.captions())
            if state.base.thumbnails is not None:
                of_base = state.base.thumbnails
                made_as = min(of_base.made_as, FORMAT)
                out = folder / THUMBNAILS
                write_thumbnails(source.thumbnails(), of_base.plan, out, sys.maxsize, made_as=made_as)
            if kept is not None:
                write_originals(folder, originals, state.find_original, there=unchanged)

        with progress.stage("writing the artifact", None):
            made = write_artifact(
                (work if base.is_in_milvus else workspace) / version,
                version=version,
                encoder=encoder,
                data=data,
                images=image_index.built,
                captions=caption_index.built,
                fill=fill,
                parent=base,
                replaced=["images.faiss", "captions.faiss", THUMBNAILS, ORIGINAL_HASHES, *(before.keys() - unchanged)],
                compacted=Compacted(parent, state.sequence, log),
            )
        return _in_the_milvus_of(base, made, workspace, work, progress, recall) if base.is_in_milvus else made


def _unindexed(vectors: Vectors) -> Candidate:
    """An exact index, which needs no file."""
    rows, dim = vectors.shape
    return Candidate(FaissIndex.build(IndexSpec(rows=rows, dim=dim), vectors), Measurement())


def _in_the_milvus_of(
    base: Artifact, made: Artifact, workspace: Path, work: Path, progress: Progress, recall: float
) -> Artifact:
    """``made`` with its indexes where those of ``base`` are. Raises IndexAway, MissingExtra or ArtifactDamaged."""
    from clip_retrieval.artifacts.in_milvus import index_in_milvus

    place = base.manifest.images.spec.uri
    return index_in_milvus(made, base.milvus, workspace, progress, recall=recall, place=place, work=work)


class _Source:
    """The live rows of a state under their new numbers, read in blocks."""

    def __init__(self, state: LiveCollection) -> None:
        self._state = state
        self._rows: dict[Modality, Rows] = {"images": state.live_rows("images"), "captions": np.empty(0, np.int64)}
        digest = hashlib.sha256()
        splits: Counter[str] = Counter()
        caption_rows = array("q")
        for image, captions in self._read():
            named = [(caption.caption_id, caption.text) for caption in captions]
            record = (image.image_id, image.content_hash, image.split, dict(image.metadata), named)
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
            splits[image.split] += 1
            caption_rows.extend(caption.row for caption in captions)
        self._rows["captions"] = np.array(caption_rows, np.int64)
        self._fingerprint, self._splits = digest.hexdigest(), splits

    def describe(self, base: DataInfo) -> DataInfo:
        """What a manifest says of the data; its fingerprint is over all records in order."""
        return base.model_copy(
            update={
                "fingerprint": self._fingerprint,
                "images": len(self._rows["images"]),
                "captions": len(self._rows["captions"]),
                "splits": {split: self._splits[split] for split in SPLITS},
            }
        )

    def write_vectors(self, target: Modality, out: Path) -> Vectors:
        """Write the vectors to the ``.npy`` file ``out``; returns it memory-mapped."""
        index, rows = self._state.index(target), self._rows[target]
        blocks = (index.vectors_of(rows[start : start + GATHER_ROWS]) for start in range(0, len(rows), GATHER_ROWS))
        return write_vectors(out, (len(rows), index.spec.dim), blocks)

    def images(self) -> Iterator[ImageRecord]:
        """The records of the images."""
        for image, _ in self._records():
            yield image

    def captions(self) -> Iterator[CaptionRecord]:
        """The records of the captions."""
        for _, captions in self._records():
            yield from captions

    def thumbnails(self) -> Iterator[Thumbnail | None]:
        """The thumbnail of each image, if it has one."""
        return map(self._state.thumbnail_of_row, self._rows["images"].tolist())

    def originals(self) -> list[str | None]:
        """The hex SHA-256 of the original file of each image, if one is kept."""
        return [self._state.original_of_row(row) for row in self._rows["images"].tolist()]

    def _records(self) -> Iterator[tuple[ImageRecord, list[CaptionRecord]]]:
        numbers = count()
        for row, (image, captions) in enumerate(self._read()):
            renumbered = [replace(caption, row=next(numbers), image_row=row) for caption in captions]
            yield replace(image, row=row), renumbered

    def _read(self) -> Iterator[tuple[ImageRecord, list[CaptionRecord]]]:
        """The images in order, under the numbers of the state."""
        rows = self._rows["images"].tolist()
        for start in range(0, len(rows), GATHER_ROWS):
            yield from self._state.images(rows[start : start + GATHER_ROWS])
