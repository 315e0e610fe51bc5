"""From a data source and an encoder to an artifact: validate and embed in one pass, split, index, write.

A build works in a folder that is named after the source and the encoder. A build that is killed leaves no artifact;
started again, it resumes, and encodes nothing twice.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

from clip_retrieval import __version__
from clip_retrieval.artifacts.artifact import (
    ENCODER,
    RECORDS,
    THUMBNAILS,
    Artifact,
    DataInfo,
    artifact_version,
    write_artifact,
)
from clip_retrieval.artifacts.record_store import Store
from clip_retrieval.build.check import count_images, records_of, require_images, require_no_reject
from clip_retrieval.build.embed import IMAGE_BATCH, Embedder, EmbeddingCounts, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.report import Report
from clip_retrieval.build.splits import Ratios, assign_splits
from clip_retrieval.build.thumbnails import ThumbnailPlans
from clip_retrieval.build.work_folder import work_folder
from clip_retrieval.datasets import Source, open_source
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import ArtifactError
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import PLANS, Plan
from clip_retrieval.indexes.choose import choose_index
from clip_retrieval.progress import Progress
from clip_retrieval.records import SPLITS, CaptionRecord, ImageRecord, Split

MEGABYTE = 10**6


@dataclass(frozen=True)
class Options:
    """The settings of a build. Settings that change the result also change the version of the artifact."""

    ratios: Ratios = (0.70, 0.15, 0.15)
    seed: int = 0
    recall: float = 0.99
    """Least recall@10 of an index against exact search."""
    limits: Limits = field(default_factory=Limits)
    strict: bool = False
    """Whether any reject stops the build."""
    thumbnails_mb: int = 500
    """Most megabytes (10⁶ bytes) of thumbnails; 0 makes none."""
    batch: int = IMAGE_BATCH
    """Images that are encoded together."""


@dataclass(frozen=True)
class BuildOutcome:
    """The artifact, the report of the validation, and what a person should know."""

    artifact: Artifact
    report: Report
    embedding: EmbeddingCounts
    notes: tuple[str, ...]
    """One line each."""


def build(
    source: Path,
    encoder_folder: Path,
    workspace: Path,
    options: Options,
    progress: Progress,
    *,
    reuse: Sequence[Artifact] = (),
) -> BuildOutcome:
    """Build the artifact of the data source at ``source``; see ``build_source``."""
    path = source.resolve()
    return build_source(
        open_source(source), path.name, encoder_folder, workspace, options, progress, place=str(path), reuse=reuse
    )


def build_source(
    source: Source,
    name: str,
    encoder_folder: Path,
    workspace: Path,
    options: Options,
    progress: Progress,
    *,
    place: str,
    reuse: Sequence[Artifact] = (),
) -> BuildOutcome:
    """Build the artifact of ``source``, which the manifest calls ``name``, with the encoder in ``encoder_folder``.

    The artifact is written to ``workspace``, in a folder named by its version. ``place`` identifies the source, so that
    a build that was killed is found again. ``reuse`` are earlier artifacts: vectors that the same encoder made are
    taken from them, and if one of them has the version of this build and passes its own checks, it is returned
    unchanged.

    Raises SourceError, ModelUnavailable, MissingExtra, or BuildRunning if the same build is running already.
    """
    items = list(source)
    info = read_info(encoder_folder)
    with (
        work_folder(workspace / f"{_work_name(place, info)}.work") as work,
        closing(KnownArtifacts(reuse, info)) as known,
        closing(Embedder(partial(load_encoder, encoder_folder), info.dim, work, known, options.batch)) as embedder,
    ):
        thumbnails = ThumbnailPlans(work, options.thumbnails_mb * MEGABYTE, known)
        with progress.stage("choosing the size of thumbnails", None):
            first_plan = thumbnails.first(items, options.limits)
        with (
            thumbnails.open(first_plan) as cache,
            progress.stage("checking and embedding images", count_images(items)) as advance,
        ):
            report = embed_images(items, embedder, options.limits, cache, advance)
        require_images(report, name)
        if options.strict:
            require_no_reject(report)

        splits = assign_splits(report.kept, options.ratios, options.seed)
        data = _describe(name, report, splits, options)
        version = artifact_version(info, data, options.recall, thumbnails_mb=options.thumbnails_mb)
        notes: tuple[str, ...] = ()
        artifact = _stored(reuse, version)
        if artifact is None:
            images, captions = records_of(report.kept, splits)
            with progress.stage("embedding captions", len(captions)) as advance:
                embedder.embed_captions([caption.text for caption in captions], advance)
            if options.thumbnails_mb:
                plan = thumbnails.write(first_plan, report.kept, work / THUMBNAILS, options.limits, progress)
                notes = thumbnail_notes(plan, options.thumbnails_mb)
            parts = _Parts(encoder_folder, info, data, images, captions, embedder, work)
            artifact = _index_and_write(parts, workspace / version, options.recall, progress)
        shutil.rmtree(work)
        return BuildOutcome(artifact, report, embedder.counts(report), notes)


def thumbnail_notes(plan: Plan | None, megabytes: int, finest: Plan = PLANS[0]) -> tuple[str, ...]:
    """What a person should know of the thumbnails that were made with ``plan`` (None: there are none)."""
    limit = f"--thumbnails-mb {megabytes}"
    if plan is None:
        return (f"no thumbnails: the smallest do not fit into {limit}; the search page shows captions instead",)
    if plan != finest:
        return (f"thumbnails of {plan} fit into {limit}; thumbnails of {finest} do not",)
    return ()


def _work_name(place: str, encoder: EncoderInfo) -> str:
    """A name that is the same for builds that can share vectors and thumbnails."""
    inputs = [place, encoder.fingerprint, encoder.runtime, __version__, metadata.version("pillow")]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _describe(name: str, report: Report, splits: Sequence[Split], options: Options) -> DataInfo:
    return DataInfo(
        name=name,
        fingerprint=report.data_fingerprint(),
        images=len(report.kept),
        captions=report.captions,
        rejected=len(report.rejects),
        splits={split: Counter(splits)[split] for split in SPLITS},
        split_ratios=options.ratios,
        split_seed=options.seed,
    )


def _stored(artifacts: Sequence[Artifact], version: str) -> Artifact | None:
    """The artifact of this version, if it passes its own checks."""
    for artifact in artifacts:
        if artifact.manifest.version == version:
            with suppress(ArtifactError):
                return Artifact.open(artifact.path)
    return None


@dataclass(frozen=True)
class _Parts:
    """The parts of an artifact before its indexes."""

    encoder_folder: Path
    encoder: EncoderInfo
    data: DataInfo
    images: list[ImageRecord]
    captions: list[CaptionRecord]
    embedder: Embedder
    work: Path


def _index_and_write(parts: _Parts, target: Path, recall: float, progress: Progress) -> Artifact:
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
        for name in ("images.npy", "captions.npy", THUMBNAILS):
            if (work / name).exists():
                (work / name).replace(folder / name)
        image_index.save(folder / "images.faiss")
        caption_index.save(folder / "captions.faiss")
        with Store.create(folder / RECORDS) as store:
            store.add(images, captions)

    with progress.stage("writing the artifact", None):
        return write_artifact(
            target,
            version=target.name,
            encoder=parts.encoder,
            data=parts.data,
            images=image_index.spec,
            captions=caption_index.spec,
            fill=fill,
        )
