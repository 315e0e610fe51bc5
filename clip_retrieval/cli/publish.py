"""A build into the model store or a folder, and how it differs from the version before."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import RECORDS, Artifact
from clip_retrieval.artifacts.manifest_file import MANIFEST
from clip_retrieval.artifacts.retention import Group, group_of
from clip_retrieval.artifacts.writer import link_or_copy
from clip_retrieval.atomic import new_folder
from clip_retrieval.build.engine import EmbeddingEngine
from clip_retrieval.build.on_a_gpu import Maker
from clip_retrieval.build.pipeline import BuildOutcome, Options, building
from clip_retrieval.build.plan import ImageState, Plan, plan, states_of_records, states_of_source
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.cli import console
from clip_retrieval.datasets.base import Source
from clip_retrieval.errors import ArtifactError
from clip_retrieval.models.prepare import cache_dir
from clip_retrieval.storage import storage
from clip_retrieval.work_folder import Say, work_folder


@dataclass(frozen=True)
class Built:
    """What a build made, where it is, and what changed since the newest version from the same source."""

    tag: str
    """A tag of the model store, or a folder."""
    group: Group
    outcome: BuildOutcome
    before: str | None
    """The tag of that version; None if there is none."""
    changes: Plan | None

    def notes(self) -> Iterator[str]:
        """One line each for people."""
        yield from self.outcome.notes
        yield str(self.outcome.embedding)
        if self.changes is not None:
            yield f"images since {self.before}: {self.changes}"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        since = None if self.changes is None else {"tag": self.before, **self.changes.to_json()}
        return {
            "tag": self.tag,
            "report": self.outcome.report.to_json(),
            "embedding": asdict(self.outcome.embedding),
            "since": since,
        }


def build_and_publish(
    source: Source,
    name: str,
    encoder: Path,
    options: Options,
    bars: console.Bars,
    *,
    place: str,
    output: Path | None = None,
    maker: Maker | None = None,
    seen: SeenFiles,
    fresh: bool = False,
    wait: bool = True,
    milvus: str | None = None,
    engine: EmbeddingEngine | None = None,
) -> Built:
    """Build ``source`` with the encoder in the folder ``encoder``, into the model store or the new folder ``output``.

    ``place`` identifies the source; ``name`` is what the manifest calls it; ``maker`` is that of ``building``.
    ``milvus`` is the URI of the Milvus that is to search, None where FAISS searches. Raises what ``building`` raises,
    and IndexAway.
    """
    workspace = cache_dir() / "builds"
    mark = modelstore.source_mark(place)
    say = console.note if wait else None
    with (
        building(
            source,
            name,
            encoder,
            workspace,
            options,
            bars,
            place=place,
            reuse=_known_artifacts(output),
            maker=maker,
            seen=seen,
            fresh=fresh,
            say=say,
            engine=engine,
        ) as found,
        _searched_by(milvus, found, workspace, options.recall, bars, say) as outcome,
    ):
        before = _newest_of((name, mark))
        changes = None
        if before is not None:
            with suppress(ArtifactError):
                changes = plan(states_of_source(outcome.report.kept), states_of_artifact(before.path))
        if output is None:
            tag = modelstore.save(outcome.artifact, console.note, source=mark)
        else:
            tag = _put(outcome.artifact, workspace, output)
    return Built(tag, (name, mark), outcome, None if before is None else before.tag, changes)


@contextmanager
def _searched_by(
    milvus: str | None, built: BuildOutcome, workspace: Path, recall: float, bars: console.Bars, say: Say | None
) -> Iterator[BuildOutcome]:
    """What was built, or the artifact with its indexes in ``milvus`` that was made of it, until the block ends."""
    if milvus is None:
        yield built
        return
    from clip_retrieval.artifacts.in_milvus import index_in_milvus

    with work_folder(workspace / f"{built.artifact.manifest.version}.milvus", say, temporary=True) as work:
        yield replace(built, artifact=index_in_milvus(built.artifact, milvus, work, bars, recall=recall, work=work))


def check_milvus(uri: str) -> None:
    """Raise IndexAway unless the Milvus at ``uri`` answers, MissingExtra where its client is not installed."""
    from clip_retrieval.artifacts.in_milvus import check_engine

    check_engine(uri)


def states_of_artifact(folder: Path) -> dict[str, ImageState]:
    """The states of the images of an artifact, by image_id. Raises ArtifactError."""
    artifact = Artifact.open(folder, verify=False)
    artifact.check_files([RECORDS])
    originals = artifact.originals()
    with artifact.store() as store:
        return states_of_records(store.images(), store.captions(), None if originals is None else originals.hashes())


def seen_files(*, stay_open: bool = False) -> SeenFiles:
    """The files that builds and checks of this user have decoded; ``stay_open`` is that of ``SeenFiles``."""
    return SeenFiles(cache_dir() / "seen-files.sqlite", stay_open=stay_open)


def _newest_of(group: Group) -> modelstore.Stored | None:
    """The newest version from this source; a version of the same name without a source's mark will do too."""
    found = [(one, group_of(one)) for one in modelstore.stored()]
    for wanted in (group, (group[0], "")):
        for one, of in found:
            if of == wanted:
                return one
    return None


def _known_artifacts(output: Path | None) -> Iterator[Artifact]:
    """Artifacts that this release can read: that in ``output``, from a build that was waited for, and the store's."""
    for folder in (*([output] if output else []), *(one.path for one in modelstore.stored() if not one.damage)):
        with suppress(ArtifactError):
            yield Artifact.open(folder, verify=False)


def _put(artifact: Artifact, workspace: Path, output: Path) -> str:
    """Put the artifact into the folder ``output``, which appears complete; one of the model store is copied.

    The build removes what is in ``workspace``. A build that was waited for may have made ``output`` of the same inputs;
    then it stays.
    """
    if not _holds(output, artifact.manifest.version):
        with storage(output.parent), new_folder(output) as folder:
            put = link_or_copy if artifact.path.is_relative_to(workspace) else shutil.copy2
            for name in (MANIFEST, *artifact.manifest.files):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                put(artifact.path / name, folder / name)
    return str(output)


def _holds(folder: Path, version: str) -> bool:
    try:
        return Artifact.open_whole(folder).manifest.version == version
    except ArtifactError:
        return False
