"""From an artifact to another with indexes chosen to a budget; every other file is the same."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from clip_retrieval.artifacts.artifact import THUMBNAILS, Artifact
from clip_retrieval.artifacts.confidence import FORM_OF_CURVES, NO_CURVES, confident_ways
from clip_retrieval.artifacts.manifest import tuned_version
from clip_retrieval.artifacts.originals import ORIGINAL_HASHES
from clip_retrieval.artifacts.writer import Compacted, write_artifact
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec
from clip_retrieval.indexes.choose import Candidate, TuningQueries
from clip_retrieval.indexes.families import Family, families
from clip_retrieval.indexes.measure import DEFAULT_METER, Meter
from clip_retrieval.indexes.sweep import Budget, SweepOutcome, find_index
from clip_retrieval.progress import Progress
from clip_retrieval.records import MODALITIES, Modality
from clip_retrieval.work_folder import Say, work_folder


class AskedVectors(NamedTuple):
    """Unit vectors (n, dim) that an index is asked for, and what they are like."""

    vectors: Vectors
    kind: Modality


@dataclass(frozen=True)
class Tuned:
    """The outcome for each index that has rows and queries, and the new artifact if every index met the budget."""

    outcomes: dict[Modality, SweepOutcome]
    artifact: Artifact | None


def tune(
    artifact: Artifact,
    budget: Budget,
    workspace: Path,
    progress: Progress,
    seed: int = 0,
    *,
    families_of: Callable[[int, int], list[Family]] | None = None,
    meter: Meter = DEFAULT_METER,
    say: Say | None = None,
    asked: Mapping[Modality, AskedVectors] | None = None,
) -> Tuned:
    """Choose both indexes of ``artifact`` to ``budget``, which holds for each alone, and write a new artifact.

    The new artifact is in ``workspace``, in a folder named by its version, which follows from the encoder, the data,
    the thumbnails and the chosen indexes. In a collection without captions the images are the queries. ``families_of``
    gives the families to try for a number of rows and of dimensions, by default all, and with a budget of resident
    memory also those that score by codes. ``asked`` has other queries than the collection's own, by the index that they
    are for. If another process tunes the same artifact, ``say`` gets a line that names
    it, and this one waits; without ``say``, raises BuildRunning instead.
    """
    families_of = families_of or partial(families, in_memory=budget.resident_mb is not None)
    outcomes: dict[Modality, SweepOutcome] = {}
    with work_folder(workspace / f"{artifact.manifest.version}.tune", say, temporary=True) as scratch:
        for modality in MODALITIES:
            vectors = artifact.vectors(modality)
            if not len(vectors):
                continue
            kind = _query_kind(artifact, modality)
            given = (asked or {}).get(modality) or AskedVectors(artifact.vectors(kind), kind)
            with progress.stage(f"exact search for {modality}", None):
                queries = TuningQueries.draw(vectors, given.vectors, given.kind, seed)
            files = scratch / modality
            shutil.rmtree(files, ignore_errors=True)  # a process that was killed may have left them
            files.mkdir()
            tried = families_of(*vectors.shape)
            outcomes[modality] = find_index(vectors, queries, tried, budget, files, progress, meter=meter)
        chosen = {modality: outcome.confirmed for modality, outcome in outcomes.items()}
        if any(candidate is None for candidate in chosen.values()):
            return Tuned(outcomes, None)
        with progress.stage("writing the artifact", None):
            return Tuned(outcomes, _rewritten(artifact, chosen, workspace))


def _query_kind(artifact: Artifact, modality: Modality) -> Modality:
    """Whose vectors are the queries: the other modality's, unless it has none."""
    return "captions" if modality == "images" and artifact.manifest.captions.rows else "images"


def _rewritten(artifact: Artifact, chosen: dict[Modality, Candidate | None], workspace: Path) -> Artifact:
    manifest = artifact.manifest
    built: dict[Modality, BuiltIndex] = {"images": manifest.images, "captions": manifest.captions}
    if artifact.is_in_milvus:
        built = {modality: _without_rows(one) for modality, one in built.items()}
    built |= {modality: candidate.built for modality, candidate in chosen.items() if candidate is not None}
    curves = artifact.curves() or NO_CURVES
    compacted = Compacted(manifest.parent, manifest.sequence, manifest.log)
    version = tuned_version(
        manifest.encoder,
        manifest.data,
        built["images"],
        built["captions"],
        thumbnails=manifest.files.get(THUMBNAILS),
        originals=manifest.files.get(ORIGINAL_HASHES),
        form_of_curves=curves.form if confident_ways(curves) else FORM_OF_CURVES,
        words_from=artifact.word_columns(),
        compacted=None if compacted.sequence is None else compacted,
    )

    def fill(folder: Path) -> None:
        for modality in MODALITIES:
            candidate = chosen.get(modality)
            if candidate is None and artifact.is_in_milvus:
                continue  # a modality without rows: its index is no file
            index = artifact.faiss_index(modality) if candidate is None else candidate.index
            index.save(folder / f"{modality}.faiss")

    return write_artifact(
        workspace / version,
        version=version,
        encoder=manifest.encoder,
        data=manifest.data,
        images=built["images"],
        captions=built["captions"],
        fill=fill,
        parent=artifact,
        replaced=[f"{modality}.faiss" for modality in MODALITIES],
        compacted=compacted,
    )


def _without_rows(built: BuiltIndex) -> BuiltIndex:
    """What FAISS has in place of an index in Milvus that has no rows."""
    return BuiltIndex(spec=IndexSpec(rows=built.spec.rows, dim=built.spec.dim))
