"""A collection with its vectors: from an artifact, or from a data source and a model.

An artifact contains its vectors. The vectors of a data source stay in a cache folder that is named after the source and
the encoder. So a second evaluation of the same source and encoder encodes nothing, and an evaluation that was stopped
resumes.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clip_retrieval import __version__
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import ReadSource, count_images, records_of, require_images
from clip_retrieval.build.embed import Embedder, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.pipeline import Options
from clip_retrieval.build.splits import assign_splits
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.encoders.base import EncoderInfo, Vectors
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionRecord, ImageBlob, ImageRecord
from clip_retrieval.storage import storage
from clip_retrieval.urls import name_of_place
from clip_retrieval.work_folder import Say, work_folder


@dataclass(frozen=True)
class EmbeddedDataset:
    """Records and vectors, joined by row; the vectors are float32 of shapes (images, dim) and (captions, dim)."""

    name: str
    encoder: EncoderInfo
    data_fingerprint: str
    images: list[ImageRecord]
    captions: list[CaptionRecord]
    image_vectors: Vectors
    caption_vectors: Vectors
    blobs: Mapping[int, ImageBlob]
    """The images by row. An artifact contains no images, so this may be empty."""


def of_artifact(name: str, artifact: Artifact, folder: Path | None = None) -> EmbeddedDataset:
    """The collection of an artifact. ``folder`` is the folder that it was built from, if that is available."""
    with artifact.store() as store:
        images, captions = store.images(), store.captions()
    blobs = {image.row: FileBlob(folder / image.image_path, image.image_path) for image in images} if folder else {}
    return EmbeddedDataset(
        name=name,
        encoder=artifact.manifest.encoder,
        data_fingerprint=artifact.manifest.data.fingerprint,
        images=images,
        captions=captions,
        image_vectors=artifact.vectors("images"),
        caption_vectors=artifact.vectors("captions"),
        blobs=blobs,
    )


def of_source(
    source: ReadSource,
    encoder_folder: Path,
    cache: Path,
    options: Options,
    progress: Progress,
    *,
    say: Say | None = None,
) -> EmbeddedDataset:
    """Validate, split and embed a data source as ``build`` does, with the encoder in ``encoder_folder``.

    ``cache`` is the folder of all cached vectors. If another process embeds the same source, ``say`` gets a line that
    names it, and this one waits. Raises SourceError, ModelUnavailable, MissingExtra, or, without ``say``, BuildRunning
    instead of waiting.
    """
    items = source.items
    info = read_info(encoder_folder)
    with (
        storage(cache, "what was embedded is kept, and the same command goes on from there"),
        work_folder(cache / _cache_name(source.place, info), say) as work,
        closing(
            Embedder(partial(load_encoder, encoder_folder), info.dim, work, KnownArtifacts((), info), options.batch)
        ) as embedder,
    ):
        with progress.stage("checking and embedding images", count_images(items)) as advance:
            report = embed_images(items, embedder, options.limits, advance=advance)
        require_images(report, source.place)
        images, captions = records_of(report.kept, assign_splits(report.kept, options.ratios, options.seed))
        with progress.stage("embedding captions", len(captions)) as advance:
            embedder.embed_captions([caption.text for caption in captions], advance)
        return EmbeddedDataset(
            name=name_of_place(source.place),
            encoder=info,
            data_fingerprint=report.data_fingerprint(),
            images=images,
            captions=captions,
            image_vectors=embedder.gather_images(images, work / "images.npy"),
            caption_vectors=embedder.gather_captions(captions, work / "captions.npy"),
            blobs={row: image.blob for row, image in enumerate(report.kept)},
        )


def _cache_name(place: str, encoder: EncoderInfo) -> str:
    key = json.dumps([place, __version__])
    return f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{encoder.runtime}-{encoder.fingerprint[:16]}"
