"""Which versions of the model store may go when only the newest are to be kept, and why others stay."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import VECTORS, Artifact
from clip_retrieval.artifacts.drop_index import drop_indexes
from clip_retrieval.artifacts.in_use import unused
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.artifacts.modelstore import Stored
from clip_retrieval.artifacts.sharing import sizes
from clip_retrieval.errors import ArtifactError, ArtifactNotFound
from clip_retrieval.work_folder import Say

Group = tuple[str, str]
"""The name of a collection and the mark of its source; versions of one group replace each other."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version beyond those that are kept. ``stays`` says why it must not be deleted; None if it may."""

    tag: str
    name: str
    freed: int
    """Bytes that its deletion gives back, as far as no other version shares them."""
    stays: str | None = None


def group_of(stored: Stored) -> Group | None:
    """The group of a version of the store; None for a damaged one, which is left to ``modelstore.delete``."""
    manifest = _manifest_of(stored)
    return None if manifest is None else (manifest.data.name, stored.source or "")


def names() -> list[str]:
    """The names of the collections in the store, in order."""
    return sorted({manifest.data.name for one in modelstore.stored() if (manifest := _manifest_of(one)) is not None})


def beyond(groups: Sequence[tuple[Stored, Group]], keep: int) -> list[Stored]:
    """What of each group is older than its ``keep`` newest; ``groups`` is in order, newest first."""
    counts: dict[Group, int] = {}
    old = []
    for one, group in groups:
        counts[group] = counts.get(group, 0) + 1
        if counts[group] > keep:
            old.append(one)
    return old


def delete(tag: str, say: Say = lambda _: None) -> None:
    """Delete a version, also a damaged one, and what Milvus has of it, as ``drop_indexes`` does.

    Raises ArtifactNotFound, and ArtifactError while a version without vectors searches the collections of this one.
    """
    modelstore.ensure_exists(tag)
    manifests = {one.tag: _manifest_of(one) for one in modelstore.stored()}
    manifest = manifests.get(tag)
    if manifest is not None and (users := _without_vectors(manifest, manifests)):
        raise ArtifactError(
            f"{users[0]} has no vectors, and searches the collections of {tag} in Milvus: delete it first"
        )
    modelstore.delete(tag, say)
    drop_indexes([] if manifest is None else [manifest], say)


def prune(
    keep: int,
    *,
    dry_run: bool = False,
    name: str | None = None,
    group: Group | None = None,
    made: str | None = None,
    index_uri: str | None = None,
    say: Say = lambda _: None,
) -> list[Version]:
    """Delete the versions of each collection that are older than its ``keep`` newest; returns what they were.

    Only those of the collection ``name``, or of ``group``, if it is given. Never deleted are the artifact that
    ``latest`` names, the one that was just ``made``, given by its tag, one that a process has open, one that a Bento of
    the store refers to, one whose collections in Milvus a version without vectors searches, and one that holds changes
    of a live collection that no newer version was made from. A version
    of another group does not count: two folders of the same name are two collections. With ``dry_run`` nothing is
    deleted. What Milvus has of a deleted version goes as ``drop_indexes`` says, to which ``index_uri`` is passed.
    """
    manifests = {one: manifest for one in modelstore.stored() if (manifest := _manifest_of(one)) is not None}
    groups = [(one, (manifest.data.name, one.source or "")) for one, manifest in manifests.items()]
    chosen = [(one, of) for one, of in groups if name in {None, of[0]} and group in {None, of}]
    parents = {manifest.parent for manifest in manifests.values()}
    latest, bentos = modelstore.latest(), list(_bento_texts())

    def stays(one: Stored) -> str | None:
        if one.tag == latest:
            return "it is the latest"
        if one.tag == made:
            return "it was just made"
        if any(one.tag in text for text in bentos):
            return "a Bento refers to it"
        if users := _without_vectors(manifests[one], {other.tag: found for other, found in manifests.items()}):
            return f"{users[0]} has no vectors, and searches its collections in Milvus"
        if manifests[one].sequence is not None and manifests[one].version not in parents:
            return "it holds changes of a live collection, and no newer version was made from it"
        return None

    done, deleted = [], []
    try:
        for one in beyond(chosen, keep):
            try:
                done.append(_pruned(one, manifests[one].data.name, stays(one), dry_run=dry_run, say=say))
            except ArtifactNotFound:  # another process has deleted it meanwhile
                continue
            if done[-1].stays is None and not dry_run:
                deleted.append(manifests[one])
    finally:
        drop_indexes(deleted, say, uri=index_uri)
    return done


def _without_vectors(manifest: Manifest, stored: Mapping[str, Manifest | None]) -> list[str]:
    """The tags of the versions without vectors that search the collections of this one, which has them."""
    if manifest.images.spec.engine != "milvus" or VECTORS["images"] not in manifest.files:
        return []
    name = manifest.images.spec.name
    return [
        tag
        for tag, other in stored.items()
        if other is not None and other.images.spec.name == name and VECTORS["images"] not in other.files
    ]


def _pruned(one: Stored, name: str, stays: str | None, *, dry_run: bool, say: Say) -> Version:
    _, freed = sizes(one.path)
    with unused(one.path) as free:
        if stays is None and not free:
            stays = "a process has it open"
        if stays is None and not dry_run:
            modelstore.delete(one.tag, say)
    return Version(one.tag, name, freed, stays)


def _manifest_of(stored: Stored) -> Manifest | None:
    if stored.damage:
        return None
    with suppress(ArtifactError):
        return Artifact.open(stored.path, verify=False).manifest
    return None


def _bento_texts() -> Iterator[str]:
    """The descriptions of the Bentos of BentoML's store; they name the models that they need."""
    home = os.environ.get("BENTOML_HOME", "~/bentoml")
    bentos = Path(os.path.expandvars(home)).expanduser() / "bentos"
    for path in bentos.glob("*/*/bento.yaml"):
        yield path.read_text(encoding="utf-8", errors="replace")
