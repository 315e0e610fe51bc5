"""A collection with its vectors, ready to be measured: of an artifact, or of a data source and a model.

An artifact has its vectors already. Those of a source are kept in a cache folder named by the fingerprints of data
and encoder, so the second evaluation of the same two embeds nothing, and one that was stopped goes on where it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.embed import ResumableVectors, embed_images, embed_texts
from clip_retrieval.build.pipeline import Options, check, records_of
from clip_retrieval.build.splits import assign_splits
from clip_retrieval.build.validate import Report
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.encoders.base import EncoderInfo, Vectors
from clip_retrieval.progress import Progress
from clip_retrieval.records import CaptionRecord, ImageRecord


@dataclass(frozen=True)
class Embedded:
    """Records and vectors, aligned by row; the vectors are float32 of shapes (images, dim) and (captions, dim)."""

    name: str
    encoder: EncoderInfo
    data_fingerprint: str
    images: list[ImageRecord]
    captions: list[CaptionRecord]
    image_vectors: Vectors
    caption_vectors: Vectors
    files: Mapping[int, Path]
    """Where the images' files are, by row; an artifact holds no images, so there may be none."""


def of_artifact(name: str, artifact: Artifact, folder: Path | None = None) -> Embedded:
    """The collection inside an artifact. ``images`` is the folder that it was built from, if that is at hand."""
    with artifact.store() as store:
        images, captions = store.images(), store.captions()
    files = {image.row: folder / image.image_path for image in images} if folder else {}
    return Embedded(
        name=name,
        encoder=artifact.manifest.encoder,
        data_fingerprint=artifact.manifest.data.fingerprint,
        images=images,
        captions=captions,
        image_vectors=artifact.vectors("images"),
        caption_vectors=artifact.vectors("captions"),
        files=files,
    )


def of_source(
    source: Path, prepare: Callable[[Report], Path], cache: Path, options: Options, progress: Progress
) -> Embedded:
    """Validate, split and embed a data source as ``build`` does.

    ``prepare`` gives the encoder's folder once the data is known, ``cache`` is where vectors are kept. Raises
    SourceError, ModelUnavailable or MissingExtra.
    """
    report = check(source, options.limits, progress)
    images, captions = records_of(report.kept, assign_splits(report.kept, options.ratios, options.seed))
    folder = prepare(report)
    info = read_info(folder)
    fingerprint = report.data_fingerprint()
    work = cache / f"{fingerprint[:16]}-{info.runtime}-{info.fingerprint[:16]}"
    work.mkdir(parents=True, exist_ok=True)
    sizes = {"images.npy": len(images), "captions.npy": len(captions)}
    parts = {name: ResumableVectors(work / name, rows, info.dim) for name, rows in sizes.items()}
    if all(part.done == part.rows for part in parts.values()):
        image_vectors, caption_vectors = (part.finish() for part in parts.values())
    else:
        del parts
        with progress.stage("loading the encoder", None):
            encoder = load_encoder(folder)
        with progress.stage("embedding images", len(images)) as advance:
            image_vectors = embed_images(
                report.kept, encoder, work / "images.npy", limits=options.limits, advance=advance
            )
        with progress.stage("embedding captions", len(captions)) as advance:
            texts = [caption.text for caption in captions]
            caption_vectors = embed_texts(texts, encoder, work / "captions.npy", advance=advance)
    return Embedded(
        name=source.resolve().name,
        encoder=info,
        data_fingerprint=fingerprint,
        images=images,
        captions=captions,
        image_vectors=image_vectors,
        caption_vectors=caption_vectors,
        files={row: image.path for row, image in enumerate(report.kept)},
    )
