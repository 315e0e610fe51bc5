"""The last step of a build: index the vectors and write the artifact."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo
from clip_retrieval.artifacts.originals import write_originals
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.build.embed import Embedder
from clip_retrieval.build.originals import GatheredOriginals
from clip_retrieval.encoders.base import EncoderInfo, Vectors
from clip_retrieval.indexes.choose import Candidate, choose_index
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionRecord, ImageRecord, Modality


def choose_indexes(
    images: Vectors, captions: Vectors, recall: float, progress: Progress
) -> tuple[Candidate, Candidate]:
    """The index of the images and that of the captions, each over unit float32 vectors (rows, dim).

    Each is chosen with the vectors of the other as queries. In a collection without captions the images are the
    queries.
    """
    with progress.stage("choosing the index of the images", None):
        kind: Modality = "captions" if len(captions) else "images"
        image_index = choose_index(images, captions if len(captions) else images, query_kind=kind, recall=recall)
    with progress.stage("choosing the index of the captions", None):
        return image_index, choose_index(captions, images, query_kind="images", recall=recall)


@dataclass(frozen=True)
class Parts:
    """The parts of an artifact before its indexes."""

    encoder_folder: Path
    encoder: EncoderInfo
    data: DataInfo
    images: list[ImageRecord]
    captions: list[CaptionRecord]
    embedder: Embedder
    work: Path
    thumbnails: Path | None
    """The file of thumbnails; None for an artifact without."""
    originals: GatheredOriginals | None
    """The original files; None for an artifact without."""
    words_from: Sequence[str] | None = None
    """The metadata columns whose words are found; None for those of text."""


def index_and_write(parts: Parts, target: Path, recall: float, progress: Progress) -> Artifact:
    """Choose both indexes for ``recall`` and write the artifact to the new folder ``target``, named by its version.

    Vectors, thumbnails and originals are moved out of the work folder.
    """
    images, captions, work = parts.images, parts.captions, parts.work
    image_vectors = parts.embedder.gather_images(images, work / "images.npy")
    caption_vectors = parts.embedder.gather_captions(captions, work / "captions.npy")
    image_index, caption_index = choose_indexes(image_vectors, caption_vectors, recall, progress)

    def fill(folder: Path) -> None:
        shutil.copytree(parts.encoder_folder, folder / ENCODER)
        for vectors in (work / "images.npy", work / "captions.npy"):
            vectors.replace(folder / vectors.name)
        if parts.thumbnails is not None:
            parts.thumbnails.replace(folder / THUMBNAILS)
        if parts.originals is not None:
            write_originals(folder, parts.originals.digests, parts.originals.find, moves=True)
        image_index.index.save(folder / "images.faiss")
        caption_index.index.save(folder / "captions.faiss")
        with RecordStore.create(folder / RECORDS) as store:
            store.add(images, captions)

    with progress.stage("writing the artifact", None):
        return write_artifact(
            target,
            version=target.name,
            encoder=parts.encoder,
            data=parts.data,
            images=image_index.built,
            captions=caption_index.built,
            fill=fill,
            words_from=parts.words_from,
        )
