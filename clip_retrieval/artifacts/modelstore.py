"""Artifacts in the BentoML model store: ``clip-retrieval:<version>``. With ``service.py``, the only user of bentoml."""

import os
import shutil
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException, NotFound

from clip_retrieval.artifacts.artifact import Artifact, Manifest
from clip_retrieval.errors import ArtifactDamaged, ArtifactNotFound

NAME = "clip-retrieval"
LATEST = f"{NAME}:latest"


def save(artifact: Artifact) -> str:
    """Move an artifact into the store and return its tag; one that has this tag already is replaced."""
    manifest = artifact.manifest
    tag = f"{NAME}:{manifest.version}"
    if (kept := find(manifest.version)) == artifact.path:
        return tag
    if kept is not None:
        bentoml.models.delete(tag)
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
        for path in artifact.path.iterdir():
            shutil.move(path, model.path)
    artifact.path.rmdir()
    return tag


def find(version: str) -> Path | None:
    """The folder of the artifact with this version, if the store has it."""
    try:
        return Path(bentoml.models.get(f"{NAME}:{version}").path)
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


def require(tag: str) -> None:
    """Raise ArtifactNotFound unless ``tag`` is the full tag of an artifact in the store, and no short name for it."""
    if tag not in tags():
        raise ArtifactNotFound(f"there is no artifact {tag} in the BentoML model store; see: bento-clip artifacts list")


def delete(tag: str) -> None:
    """Take an artifact out of the store. Raises ArtifactNotFound as ``require`` does."""
    require(tag)
    bentoml.models.delete(tag)


def locate(source: str) -> tuple[str, Path]:
    """The tag (or path) and the folder of an artifact named by a model store tag or by the path of a folder.

    ``clip-retrieval`` alone and ``…:latest`` name the newest. Raises ArtifactNotFound.
    """
    if os.path.isdir(source):  # noqa: PTH112 - pathlib fails on what is too long for a file name
        return source, Path(source)
    try:
        model = bentoml.models.get(source)
    except (BentoMLException, ValueError) as error:
        raise ArtifactNotFound(
            f"there is no artifact {source}: it is neither a folder nor a tag in the BentoML model store "
            "(see: bentoml models list). Build one with: bento-clip build SOURCE --model demo"
        ) from error
    return str(model.tag), Path(model.path)


def labels(manifest: Manifest) -> dict[str, str]:
    """What an artifact is made of, in BentoML's alphabet of labels."""
    return {
        "model": _label(manifest.encoder.name),
        "data": manifest.data.fingerprint[:16],
        "images": str(manifest.data.images),
        "captions": str(manifest.data.captions),
    }


def _label(text: str) -> str:
    """A BentoML label value: at most 63 characters of a small alphabet."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return kept.strip("-_.")[:63].strip("-_.")
