"""The last step of a build: index the vectors and write the artifact."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.build.embed import Embedder
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.indexes.choose import choose_index
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionRecord, ImageRecord


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


def index_and_write(parts: Parts, target: Path, recall: float, progress: Progress) -> Artifact:
    """Choose both indexes for ``recall`` and write the artifact to the new folder ``target``, named by its version.

    Vectors and thumbnails are moved out of the work folder.
    """
    images, captions, work = parts.images, parts.captions, parts.work
    image_vectors = parts.embedder.gather_images(images, work / "images.npy")
    caption_vectors = parts.embedder.gather_captions(captions, work / "captions.npy")
    with progress.stage("choosing the index of the images", None):
        image_index = choose_index(
            image_vectors,
            caption_vectors if captions else image_vectors,
            query_kind="captions" if captions else "images",
            recall=recall,
        )
    with progress.stage("choosing the index of the captions", None):
        caption_index = choose_index(caption_vectors, image_vectors, query_kind="images", recall=recall)

    def fill(folder: Path) -> None:
        shutil.copytree(parts.encoder_folder, folder / ENCODER)
        for vectors in (work / "images.npy", work / "captions.npy"):
            vectors.replace(folder / vectors.name)
        if parts.thumbnails is not None:
            parts.thumbnails.replace(folder / THUMBNAILS)
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
        )
