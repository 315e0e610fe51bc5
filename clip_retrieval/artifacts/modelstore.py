"""Artifacts in the BentoML model store, under the tag ``clip-retrieval:<version>``.

What is odd about the store: it fills a temporary folder of its own and copies that into its place, under the final name
from the start; it keeps a file ``model.yaml`` beside those of an artifact; and labels have a small alphabet.
"""

import os
import shutil
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException, NotFound

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.artifacts.writer import link_or_copy
from clip_retrieval.errors import ArtifactDamaged, ArtifactNotFound

NAME = "clip-retrieval"
LATEST = f"{NAME}:latest"


def save(artifact: Artifact) -> str:
    """Move an artifact into the store and return its tag; an artifact that has this tag already is replaced.

    If the store fails, the artifact stays in its folder.
    """
    manifest = artifact.manifest
    tag = tag_of(manifest.version)
    if (kept := find(manifest.version)) == artifact.path:
        return tag
    with bentoml.models.create(
        tag,
        labels=labels(manifest),
        metadata={
            "encoder": manifest.encoder.model_dump(mode="json", exclude_none=True),
            "data": manifest.data.model_dump(mode="json", exclude_none=True),
            "images": manifest.images.facts(exclude_none=True),
            "captions": manifest.captions.facts(exclude_none=True),
        },
    ) as model:
        shutil.copytree(artifact.path, model.path, copy_function=link_or_copy, dirs_exist_ok=True)
        if kept is not None:
            bentoml.models.delete(tag)
    shutil.rmtree(artifact.path)
    return tag


def tag_of(version: str) -> str:
    """The tag of the artifact with this version."""
    return f"{NAME}:{version}"


def find(version: str) -> Path | None:
    """The folder of the artifact with this version, if the store has it."""
    try:
        return Path(bentoml.models.get(tag_of(version)).path)
    except NotFound:
        return None


def tags() -> list[str]:
    """The tags of all artifacts in the store, newest first."""
    try:
        models = sorted(bentoml.models.list(NAME), key=lambda model: model.creation_time, reverse=True)
    except NotFound:
        return []
    except BentoMLException as error:
        raise ArtifactDamaged(f"the BentoML model store cannot be read: {error}") from error
    return [str(model.tag) for model in models]


def ensure_exists(tag: str) -> None:
    """Raise ArtifactNotFound unless ``tag`` is the full tag of an artifact in the store; a short name is refused."""
    if tag not in tags():
        raise ArtifactNotFound(f"there is no artifact {tag} in the BentoML model store; see: bento-clip artifacts list")


def delete(tag: str) -> None:
    """Delete an artifact from the store. Raises ArtifactNotFound as ``ensure_exists`` does."""
    ensure_exists(tag)
    bentoml.models.delete(tag)


def resolve(source: str) -> tuple[str, Path]:
    """The name and the folder of an artifact, from a tag in the model store or from the path of a folder.

    The name is the full tag, or the path as it was given. ``clip-retrieval`` and ``clip-retrieval:latest`` mean the
    newest artifact. Raises ArtifactNotFound.
    """
    if os.path.isdir(source):  # noqa: PTH112 - pathlib raises for a text too long for a file name
        return source, Path(source)
    try:
        model = bentoml.models.get(source)
    except (BentoMLException, ValueError) as error:
        raise ArtifactNotFound(
            f"there is no artifact {source}: it is neither a folder nor a tag in the BentoML model store "
            "(see: bento-clip artifacts list). Build one with: bento-clip build SOURCE --model demo"
        ) from error
    return str(model.tag), Path(model.path)


def labels(manifest: Manifest) -> dict[str, str]:
    """BentoML labels that say what an artifact is made of."""
    return {
        "model": _label(manifest.encoder.name),
        "data": manifest.data.fingerprint[:16],
        "images": str(manifest.data.images),
        "captions": str(manifest.data.captions),
    }


def _label(text: str) -> str:
    """A BentoML label value: at most 63 characters of a small alphabet."""
    allowed = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return allowed.strip("-_.")[:63].strip("-_.")
