"""From an artifact to another with indexes chosen to a budget; every other file is the same."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts.artifact import THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import tuned_version
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.indexes.choose import Queries, QueryKind
from clip_retrieval.indexes.faiss_index import Index
from clip_retrieval.indexes.families import families
from clip_retrieval.indexes.sweep import Budget, Outcome, find_index
from clip_retrieval.progress import Progress
from clip_retrieval.records import Modality

MODALITIES: tuple[Modality, ...] = ("images", "captions")


@dataclass(frozen=True)
class Tuned:
    """The outcome for each index that has rows and queries, and the new artifact if every index met the budget."""

    outcomes: dict[Modality, Outcome]
    artifact: Artifact | None


def tune(artifact: Artifact, budget: Budget, workspace: Path, progress: Progress, seed: int = 0) -> Tuned:
    """Choose both indexes of ``artifact`` to ``budget``, which holds for each alone, and write a new artifact.

    The new artifact is in ``workspace``, in a folder named by its version, which follows from the encoder, the data,
    the thumbnails and the chosen indexes. A collection without captions uses its images as queries.
    """
    scratch = workspace / f"{artifact.manifest.version}.tune"
    shutil.rmtree(scratch, ignore_errors=True)
    outcomes: dict[Modality, Outcome] = {}
    try:
        for modality in MODALITIES:
            vectors, other = artifact.vectors(modality), _queries_of(artifact, modality)
            if not len(vectors):
                continue
            kind: QueryKind = "captions" if other == "captions" else "images"
            with progress.stage(f"exact search for {modality}", None):
                queries = Queries.draw(vectors, artifact.vectors(other), kind, seed)
            files = scratch / modality
            files.mkdir(parents=True)
            outcomes[modality] = find_index(vectors, queries, families(*vectors.shape), budget, files, progress)
        found = {modality: outcome.confirmed for modality, outcome in outcomes.items()}
        if any(index is None for index in found.values()):
            return Tuned(outcomes, None)
        with progress.stage("writing the artifact", None):
            return Tuned(outcomes, _rewritten(artifact, found, workspace))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _queries_of(artifact: Artifact, modality: Modality) -> Modality:
    """Whose vectors are the queries: the other modality's, unless there are none."""
    return "captions" if modality == "images" and artifact.manifest.captions.rows else "images"


def _rewritten(artifact: Artifact, found: dict[Modality, Index | None], workspace: Path) -> Artifact:
    indexes = {modality: found.get(modality) or artifact.index(modality) for modality in MODALITIES}
    images, captions = indexes["images"].spec, indexes["captions"].spec
    manifest = artifact.manifest
    thumbnails = manifest.files.get(THUMBNAILS)
    version = tuned_version(manifest.encoder, manifest.data, images, captions, thumbnails=thumbnails)

    def fill(folder: Path) -> None:
        for modality, index in indexes.items():
            index.save(folder / f"{modality}.faiss")

    return write_artifact(
        workspace / version,
        version=version,
        encoder=manifest.encoder,
        data=manifest.data,
        images=images,
        captions=captions,
        fill=fill,
        parent=artifact,
        replaced=[f"{modality}.faiss" for modality in MODALITIES],
    )
