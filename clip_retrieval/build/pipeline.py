"""From a data source and an encoder to an artifact: validate, split, embed, index, write.

A build works in a cache folder whose name is made of its inputs. Killed at any point, it leaves no artifact; started
again with the same inputs, it goes on where the embedding was.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from clip_retrieval.artifacts.artifact import ENCODER, RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo, artifact_version
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.thumbnails import PLANS, write_thumbnails
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.build.embed import embed_images, embed_texts
from clip_retrieval.build.splits import assign_splits
from clip_retrieval.build.validate import Report, validate
from clip_retrieval.datasets import open_source
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.errors import ArtifactError, SourceError
from clip_retrieval.images.decode import Limits, decode_image
from clip_retrieval.indexes.choose import choose_index
from clip_retrieval.progress import Progress
from clip_retrieval.records import SPLITS, CaptionRecord, ImageRecord, Split, ValidImage

CALIBRATION = 300


@dataclass(frozen=True)
class Options:
    """What a build may vary; what changes the outcome changes the version of the artifact."""

    ratios: tuple[float, float, float] = (0.70, 0.15, 0.15)
    seed: int = 0
    recall: float = 0.99
    """Least recall@10 of an index against exact search."""
    limits: Limits = field(default_factory=Limits)
    strict: bool = False
    """Whether any reject ends the build."""
    thumbnails_mb: int = 500
    """Most megabytes (10⁶ bytes) of thumbnails; 0 makes none."""


def check(source: Path, limits: Limits, progress: Progress) -> Report:
    """Read and validate a data source. Raises SourceError when it cannot be read or nothing in it is usable."""
    data = open_source(source)
    with progress.stage("checking images", None) as advance:
        report = validate(data, limits, progress=advance)
    if not report.kept:
        reasons = "; ".join(f"{r.where}: {r.reason}" for r in report.rejects[:3])
        raise SourceError(f"{source} has no usable image ({reasons or 'it is empty'})")
    return report


def build(
    source: Path,
    prepare: Callable[[Report], Path],
    workspace: Path,
    options: Options,
    progress: Progress,
    *,
    find: Callable[[str], Path | None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Artifact, Report]:
    """Build the artifact of ``source`` in ``workspace``, in a folder named by its version.

    ``prepare`` gives the encoder's folder once the data is known. ``find`` says where a version has been kept by an
    earlier build; if that one passes its own checks it is returned as it is. ``say`` gets what a person should know of
    the outcome, a line at a time. Raises SourceError, ModelUnavailable or
    MissingExtra.
    """
    report = check(source, options.limits, progress)
    if options.strict and report.rejects:
        first = report.rejects[0]
        raise SourceError(
            f"{len(report.rejects)} rejected, and --strict allows none; first {first.where}: {first.reason}"
        )
    splits = assign_splits(report.kept, options.ratios, options.seed)
    images, captions = records_of(report.kept, splits)
    encoder_folder = prepare(report)
    info = read_info(encoder_folder)
    data = DataInfo(
        name=source.resolve().name,
        fingerprint=report.data_fingerprint(),
        images=len(images),
        captions=len(captions),
        rejected=len(report.rejects),
        splits={name: Counter(splits)[name] for name in SPLITS},
        split_ratios=options.ratios,
        split_seed=options.seed,
    )
    version = artifact_version(info, data, options.recall, thumbnails_mb=options.thumbnails_mb)
    if (kept := find(version)) is not None:
        with suppress(ArtifactError):
            return Artifact.open(kept), report

    work = workspace / f"{version}.work"
    work.mkdir(parents=True, exist_ok=True)
    with progress.stage("loading the encoder", None):
        encoder = load_encoder(encoder_folder)
    with progress.stage("embedding images", len(images)) as advance:
        image_vectors = embed_images(report.kept, encoder, work / "images.npy", limits=options.limits, advance=advance)
    with progress.stage("embedding captions", len(captions)) as advance:
        caption_vectors = embed_texts([c.text for c in captions], encoder, work / "captions.npy", advance=advance)
    with progress.stage("choosing the index of the images", None):
        image_index = choose_index(
            image_vectors,
            caption_vectors if captions else image_vectors,
            query_kind="captions" if captions else "images",
            recall=options.recall,
        )
    with progress.stage("choosing the index of the captions", None):
        caption_index = choose_index(caption_vectors, image_vectors, query_kind="images", recall=options.recall)

    if options.thumbnails_mb:
        _make_thumbnails(report.kept, work / THUMBNAILS, options, progress, say)

    def fill(folder: Path) -> None:
        shutil.copytree(encoder_folder, folder / ENCODER)
        for name in ("images", "captions"):
            shutil.copy2(work / f"{name}.npy", folder / f"{name}.npy")
        image_index.index.save(folder / "images.faiss")
        caption_index.index.save(folder / "captions.faiss")
        with RecordStore.create(folder / RECORDS) as store:
            store.add(images, captions)
        if (work / THUMBNAILS).exists():
            shutil.copy2(work / THUMBNAILS, folder / THUMBNAILS)

    with progress.stage("writing the artifact", None):
        artifact = write_artifact(
            workspace / version,
            version=version,
            encoder=info,
            data=data,
            images=image_index.built,
            captions=caption_index.built,
            fill=fill,
        )
    shutil.rmtree(work, ignore_errors=True)
    return artifact, report


def _make_thumbnails(
    kept: list[ValidImage], out: Path, options: Options, progress: Progress, say: Callable[[str], None]
) -> None:
    budget = options.thumbnails_mb * 10**6
    with progress.stage("making thumbnails", len(kept)) as advance:
        plan = write_thumbnails(kept, out, limits=options.limits, budget=budget, advance=advance)
    limit = f"--thumbnails-mb {options.thumbnails_mb}"
    if plan is None:
        say(f"no thumbnails: not even the smallest fit into {limit}; the search page shows captions instead")
    elif plan != PLANS[0]:
        say(f"thumbnails of {plan} fit into {limit}, of {PLANS[0]} would not")


def calibration(report: Report, limits: Limits) -> tuple[list[Image.Image], list[str]]:
    """Images and captions to quantise an encoder with: up to 300 of each, spread over the collection."""
    spread = report.kept[:: max(1, len(report.kept) // CALIBRATION)][:CALIBRATION]
    images = [decode_image(image.path.read_bytes(), limits) for image in spread]
    texts = [caption.text for image in spread for caption in image.captions[:1]]
    return images, texts


def records_of(kept: list[ValidImage], splits: list[Split]) -> tuple[list[ImageRecord], list[CaptionRecord]]:
    """The records of validated images and their splits: row *i* is image *i*, captions follow their images."""
    images: list[ImageRecord] = []
    captions: list[CaptionRecord] = []
    for row, (image, split) in enumerate(zip(kept, splits, strict=True)):
        images.append(
            ImageRecord(
                row,
                image.image_id,
                image.image_path,
                image.content_hash,
                image.width,
                image.height,
                split,
                image.metadata,
            )
        )
        for caption in image.captions:
            assert caption.caption_id is not None, "validation gives every caption an id"
            captions.append(CaptionRecord(len(captions), caption.caption_id, row, caption.text))
    return images, captions
