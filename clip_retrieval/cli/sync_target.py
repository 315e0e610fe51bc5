"""What a source can be synchronised to: an artifact of the model store, or a running service."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from clip_retrieval.artifacts import modelstore, retention
from clip_retrieval.artifacts.artifact import ENCODER, Artifact
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.retention import Version
from clip_retrieval.build.check import ReadSource
from clip_retrieval.build.pipeline import Options
from clip_retrieval.build.plan import Plan, plan, states_of_source
from clip_retrieval.build.report import Report
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.cli import console
from clip_retrieval.cli.change_options import patient
from clip_retrieval.cli.publish import build_and_publish, states_of_artifact
from clip_retrieval.cli.sync_service import Served, apply, served
from clip_retrieval.client import Client
from clip_retrieval.errors import ArtifactNotFound, SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.records import CaptionedImage, Reject


@dataclass(frozen=True)
class Outcome:
    """What became of a plan."""

    place: str
    """The tag of the artifact, or the URL of the service, that is equal to the source now."""
    refused: Sequence[Reject] = ()
    sequence: int | None = None
    pruned: Sequence[Version] = ()


@dataclass(frozen=True)
class Look:
    """A source as it is now; ``place`` identifies it."""

    source: ReadSource
    report: Report
    place: str


class Target(Protocol):
    """A collection that can be made equal to a source."""

    def plan(self, look: Look) -> Plan:
        """The changes that it needs."""
        ...

    def apply(self, look: Look, plan: Plan) -> Outcome:
        """Make the changes of the plan that was asked for last."""
        ...

    def close(self) -> None:
        """Let go of the collection."""
        ...


class ArtifactTarget:
    """The next version of an artifact of the model store: with its encoder, its name and its splits."""

    def __init__(
        self, tag: str, options: Options, keep: int | None, seen: SeenFiles, bars: console.Bars, *, wait: bool
    ) -> None:
        """Raises ArtifactError."""
        self.tag, folder = modelstore.resolve(tag)
        if self.tag == tag and Path(tag).is_dir():
            raise ArtifactNotFound(f"{tag} is a folder; --to takes a tag of the model store, or the URL of a service")
        self._options, self._keep, self._seen, self._bars, self._wait = options, keep, seen, bars, wait
        self._artifact = Artifact.open(folder)
        if self._artifact.manifest.data.vectors is not None:
            raise SourceError(f"another program made the vectors of {self.tag}; use build --take-vectors instead")
        if (how := self._artifact.manifest.data.embedded) is not None:
            raise SourceError(
                f"{how} made the vectors of {self.tag}, and sync would encode everything again on the CPU; "
                "build SOURCE --device cuda, with the same model, encodes only what is new"
            )
        self._in_use = InUse(folder)

    def plan(self, look: Look) -> Plan:
        return plan(states_of_source(look.report.kept), states_of_artifact(self._artifact.path))

    def apply(self, look: Look, plan: Plan) -> Outcome:
        if plan.is_empty:
            return Outcome(self.tag)
        data = self._artifact.manifest.data
        options = replace(
            self._options,
            ratios=data.split_ratios,
            seed=data.split_seed,
            words_from=self._artifact.word_columns(),
        )
        if not self._artifact.has_thumbnails:
            options = replace(options, thumbnails_mb=0)
        options = replace(options, keep_originals=self._artifact.has_originals)
        built = build_and_publish(
            look.source,
            data.name,
            self._artifact.path / ENCODER,
            options,
            self._bars,
            place=look.place,
            seen=self._seen,
            wait=self._wait,
        )
        self.close()
        self.tag, folder = modelstore.resolve(built.tag)
        self._artifact, self._in_use = Artifact.open(folder, verify=False), InUse(folder)
        for note in built.outcome.notes:
            console.note(note)
        console.note(str(built.outcome.embedding))
        pruned = [] if self._keep is None else retention.prune(self._keep, group=built.group, say=console.note)
        return Outcome(built.tag, pruned=pruned)

    def close(self) -> None:
        self._in_use.close()


class ServiceTarget:
    """The collection of a running service."""

    def __init__(self, url: str, limits: Limits, bars: console.Bars, key: str | None = None) -> None:
        self._url, self._limits, self._bars = url, limits, bars
        self._client = Client(url, key=key, retries=patient())
        self._held = Served({}, {})

    def plan(self, look: Look) -> Plan:
        self._held = served(self._client, self._bars)
        wanted = states_of_source(look.report.kept)
        return plan(wanted, self._held.states, _unreadable(look.source, wanted))

    def apply(self, look: Look, plan: Plan) -> Outcome:
        wanted = {image.image_id: image for image in look.report.kept}
        applied = apply(self._client, plan, wanted, self._held, self._limits, self._bars)
        return Outcome(self._url, applied.refused, applied.sequence)

    def close(self) -> None:
        self._client.close()


def _unreadable(source: ReadSource, usable: Collection[str]) -> set[str]:
    """The ids of the images that a source names and that have no usable file."""
    return {item.image_id for item in source.items if isinstance(item, CaptionedImage)} - set(usable)
