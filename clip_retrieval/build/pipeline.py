"""From a data source and an encoder to an artifact: validate and embed in one pass, split, index, write.

A build works in a folder that is named after the source and the encoder, and holds it until the artifact is published:
a second build of the same waits, and then finds that artifact. A build that is killed at any moment, also while it
publishes, leaves half an artifact nowhere; started again, it resumes, and encodes nothing twice.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path

from clip_retrieval import __version__
from clip_retrieval.artifacts.artifact import THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo, artifact_version
from clip_retrieval.artifacts.originals import ORIGINALS
from clip_retrieval.build.check import count_images, records_of, require_images, require_no_reject
from clip_retrieval.build.embed import IMAGE_BATCH, Embedder, EmbeddingCounts
from clip_retrieval.build.engine import EmbeddingEngine, ImageTask, LocalEngine
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.on_a_gpu import Maker, checked
from clip_retrieval.build.originals import gather_originals
from clip_retrieval.build.report import Report
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.build.splits import Ratios, assign_splits
from clip_retrieval.build.taken_vectors import take_vectors
from clip_retrieval.build.thumbnails import ThumbnailPlans, thumbnail_notes
from clip_retrieval.build.write import Parts, index_and_write
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders import load_encoder, read_info
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.errors import ArtifactError, SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.measure import LEAST_RECALL
from clip_retrieval.progress import Progress
from clip_retrieval.records import SPLITS, Split
from clip_retrieval.storage import storage
from clip_retrieval.urls import name_of_place
from clip_retrieval.work_folder import HOLDER, Say, work_folder

MEGABYTE = 10**6
WORK = ".work"
"""The suffix of the folder that a build works in."""


@dataclass(frozen=True)
class Options:
    """The settings of a build. Settings that change the result also change the version of the artifact."""

    ratios: Ratios = (0.70, 0.15, 0.15)
    seed: int = 0
    recall: float = LEAST_RECALL
    """The least recall of an index against exact search, at every k of ``RECALL_KS``."""
    limits: Limits = field(default_factory=Limits)
    strict: bool = False
    """Whether any reject stops the build."""
    thumbnails_mb: int = 500
    """Most megabytes (10⁶ bytes) of thumbnails; 0 makes none."""
    keep_originals: bool = False
    """Whether the artifact keeps the original files of the images."""
    batch: int = IMAGE_BATCH
    """Images that are encoded together."""
    words_from: tuple[str, ...] | None = None
    """The metadata columns whose words are found beside those of captions and file names; None for those of text.
    A column that no image has gives none."""


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
    reuse: Iterable[Artifact] = (),
    say: Say | None = None,
) -> BuildOutcome:
    """Build the artifact of the data source at ``source`` into ``workspace``, in a folder named by its version.

    The parameters and errors are those of ``building``.
    """
    path = source.resolve()
    data = open_source(path)
    with building(
        data,
        name_of_place(str(path)),
        encoder_folder,
        workspace,
        options,
        progress,
        place=str(path),
        reuse=reuse,
        say=say,
    ) as outcome:
        artifact, target = outcome.artifact, workspace / outcome.artifact.manifest.version
        if artifact.path.parent.suffix == WORK:
            artifact = _moved(artifact, target)
    return replace(outcome, artifact=artifact)


@contextmanager
def building(
    source: Source,
    name: str,
    encoder_folder: Path,
    workspace: Path,
    options: Options,
    progress: Progress,
    *,
    place: str,
    reuse: Iterable[Artifact] = (),
    maker: Maker | None = None,
    seen: SeenFiles | None = None,
    fresh: bool = False,
    say: Say | None = None,
    engine: EmbeddingEngine | None = None,
) -> Iterator[BuildOutcome]:
    """Build the artifact of ``source``, which the manifest calls ``name``, with the encoder in ``encoder_folder``.

    The artifact lies in a work folder below ``workspace``, and the block publishes it: moves it, or copies it. The work
    folder is removed after the block. If the block raises, what was made is kept for the next build. ``place``
    identifies the source, so that a build that was killed is found again. ``reuse`` are earlier artifacts, which are
    asked for when no other process builds the same: vectors that the same encoder made are taken from them, and if one
    of them has the version of this build and passes its own checks, it is the outcome, where it lies. A file that was
    ``seen`` is decoded only for what no artifact has. The result is the same without both. A ``fresh`` build uses
    nothing that was made before, not even by a build that was stopped. A ``maker`` makes the vectors instead of the
    encoder, with which a sample of them is compared; the version of the artifact says so.

    ``engine`` embeds, by default in this process; with every engine the result is the same.

    If another process builds the same, ``say`` gets a line that names it, and this build waits for it. Raises
    SourceError, ModelUnavailable, MissingExtra, EncoderFailed, StorageFailed, or, without ``say``, BuildRunning instead
    of waiting.
    """
    if options.keep_originals and source.vectors_mark is not None:
        raise SourceError("vectors that another program made come without image files, so there are none to keep")
    items = list(source)
    info = read_info(encoder_folder)
    embedded = None if maker is None else maker.how
    notes: list[str] = []
    load, batch = partial(load_encoder, encoder_folder), options.batch
    if maker is not None:
        load, batch = partial(checked, maker, encoder_folder, source, options.limits, notes.append), maker.batch
    with (
        storage(workspace, "what was embedded is kept, and the same command goes on from there"),
        work_folder(workspace / f"{_work_name(source, place, info, embedded)}{WORK}", say) as work,
        # Asked for only now: a build that was waited for may have added one.
        closing(_known(earlier := _earlier(work, reuse, fresh=fresh), info, embedded, progress)) as known,
        closing(Embedder(load, info.dim, work, known, batch)) as embedder,
    ):
        thumbnails_mb = options.thumbnails_mb if source.vectors_mark is None else 0
        thumbnails = ThumbnailPlans(work, thumbnails_mb * MEGABYTE, known)
        if source.vectors_mark is not None:
            with progress.stage("taking vectors", count_images(items)) as advance:
                report = take_vectors(items, embedder, info.dim, advance)
        else:
            first_plan = thumbnails.first(items, options.limits, progress)
            with (
                thumbnails.open(first_plan) as cache,
                progress.stage("checking and embedding images", count_images(items)) as advance,
            ):
                task = ImageTask(
                    items,
                    encoder_folder,
                    info,
                    work,
                    options.limits,
                    embedder,
                    cache,
                    advance,
                    seen,
                    fresh,
                    maker is not None,
                )
                report = (engine or LocalEngine()).embed(task)
        require_images(report, place)
        if options.strict:
            require_no_reject(report)

        originals = None
        if options.keep_originals:
            with progress.stage("keeping the original files", len(report.kept)) as advance:
                originals = gather_originals(report.kept, work / ORIGINALS, options.limits, seen, advance)
            notes.append(originals.note())
        splits = assign_splits(report.kept, options.ratios, options.seed)
        data = _describe(source, name, report, splits, options, embedded)
        version = artifact_version(
            info,
            data,
            options.recall,
            thumbnails_mb=thumbnails_mb,
            words_from=options.words_from,
            originals=None if originals is None else originals.fingerprint,
        )
        made = [*(one.path for one in earlier if one.manifest.version == version), workspace / version, work / version]
        artifact = None if fresh else _stored(made)
        if artifact is None:
            images, captions = records_of(report.kept, splits)
            with progress.stage("embedding captions", len(captions)) as advance:
                embedder.embed_captions([caption.text for caption in captions], advance)
            small: Path | None = None  # a file of an earlier, killed build may have other rows
            if thumbnails_mb:
                plan = thumbnails.write(first_plan, report.kept, work / THUMBNAILS, options.limits, progress)
                notes += thumbnail_notes(plan, thumbnails_mb)
                small = None if plan is None else work / THUMBNAILS
            parts = Parts(
                *(encoder_folder, info, data, images, captions, embedder, work, small, originals),
                words_from=options.words_from,
            )
            artifact = index_and_write(parts, work / version, options.recall, progress)
        yield BuildOutcome(artifact, report, embedder.counts(report), tuple(notes))
        shutil.rmtree(work)  # last of all: whatever fails above finds its vectors here the next time


def _moved(artifact: Artifact, target: Path) -> Artifact:
    """The artifact at ``target``; what has that name is damaged."""
    shutil.rmtree(target, ignore_errors=True)
    return Artifact(artifact.path.rename(target), artifact.manifest)


def _earlier(work: Path, reuse: Iterable[Artifact], *, fresh: bool) -> list[Artifact]:
    """The artifacts to reuse; for a ``fresh`` build none, and what a stopped build left is removed too."""
    if not fresh:
        return list(reuse)
    for left in work.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != HOLDER:
            left.unlink()
    return []


def _known(
    artifacts: Sequence[Artifact], encoder: EncoderInfo, embedded: str | None, progress: Progress
) -> KnownArtifacts:
    if not artifacts:
        return KnownArtifacts((), encoder)
    with progress.stage("reading earlier artifacts", None):
        return KnownArtifacts(artifacts, encoder, embedded)


def _work_name(source: Source, place: str, encoder: EncoderInfo, embedded: str | None) -> str:
    """A name that is the same for builds that can share vectors and thumbnails."""
    kind = [one for one in (source.vectors_mark, embedded) if one is not None]
    inputs = [*kind, place, encoder.fingerprint, encoder.runtime, __version__, metadata.version("pillow")]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _describe(
    source: Source, name: str, report: Report, splits: Sequence[Split], options: Options, embedded: str | None
) -> DataInfo:
    return DataInfo(
        name=name,
        fingerprint=report.data_fingerprint(),
        images=len(report.kept),
        captions=report.captions,
        rejected=len(report.rejects),
        splits={split: Counter(splits)[split] for split in SPLITS},
        split_ratios=options.ratios,
        split_seed=options.seed,
        embedded=embedded,
        vectors=None if source.vectors_mark is None else f"{source.taking.why} ({source.vectors_mark})",
    )


def _stored(folders: Sequence[Path]) -> Artifact | None:
    """The first of these artifacts that passes its own checks."""
    for folder in folders:
        with suppress(ArtifactError):
            return Artifact.open_whole(folder)
    return None
