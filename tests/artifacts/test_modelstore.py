"""Artifacts in the BentoML model store: saved under their version, found by tag, described to BentoML's own tools."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ArtifactNotFound

Tags = Callable[[], list[str]]


def test_a_saved_artifact_has_its_version_as_tag_and_opens_from_the_store(
    model_store: Tags, artifact_copy: Artifact
) -> None:
    tag = modelstore.save(artifact_copy)
    assert tag == f"clip-retrieval:{artifact_copy.manifest.version}"
    assert model_store() == [tag]
    folder = modelstore.find(artifact_copy.manifest.version)
    assert folder is not None
    assert Artifact.open(folder).manifest == artifact_copy.manifest


def test_saving_moves_the_artifact(model_store: Tags, artifact_copy: Artifact) -> None:
    modelstore.save(artifact_copy)
    assert not artifact_copy.path.exists()


def test_saving_what_is_in_the_store_already_changes_nothing(stored_tag: str, model_store: Tags) -> None:
    _, folder = modelstore.resolve(stored_tag)
    assert modelstore.save(Artifact.open(folder)) == stored_tag
    assert model_store() == [stored_tag]
    Artifact.open(folder)


def test_saving_the_same_version_again_replaces_a_damaged_one(
    stored_tag: str, model_store: Tags, fake_artifact: Artifact, tmp_path: Path
) -> None:
    _, folder = modelstore.resolve(stored_tag)
    (folder / "images.npy").unlink()
    fresh = Artifact.open(Path(shutil.copytree(fake_artifact.path, tmp_path / "fresh")))
    assert modelstore.save(fresh) == stored_tag
    assert model_store() == [stored_tag]
    Artifact.open(modelstore.resolve(stored_tag)[1])


def test_an_artifact_survives_a_store_that_fails(model_store: Tags, artifact_copy: Artifact) -> None:
    """A file stands where the store needs a folder, so nothing can be written there."""
    place = Path(os.environ["BENTOML_HOME"]) / "models" / "clip-retrieval"
    shutil.rmtree(place, ignore_errors=True)
    place.touch()
    try:
        with pytest.raises(OSError, match="clip-retrieval"):
            modelstore.save(artifact_copy)
    finally:
        place.unlink()
    Artifact.open(artifact_copy.path)
    modelstore.save(artifact_copy)


def test_find_knows_only_what_was_saved(stored_tag: str) -> None:
    assert modelstore.find("0123456789abcdef") is None


@pytest.mark.parametrize("name", ["clip-retrieval", "clip-retrieval:latest"])
def test_the_newest_artifact_is_located_by_name(stored_tag: str, name: str) -> None:
    tag, folder = modelstore.resolve(name)
    assert tag == stored_tag
    assert f"clip-retrieval:{Artifact.open(folder).manifest.version}" == tag


def test_a_folder_is_located_as_it_is(artifact_copy: Artifact) -> None:
    folder = artifact_copy.path
    assert modelstore.resolve(str(folder)) == (str(folder), folder)


@pytest.mark.parametrize(
    "name", ["clip-retrieval:latest", "clip-retrieval:0123456789abcdef", "no/such/folder", "a b", ""]
)
def test_what_is_nowhere_is_refused_with_what_to_do(model_store: Tags, name: str) -> None:
    with pytest.raises(ArtifactNotFound, match=r"(?s)there is no artifact .*bento-clip build"):
        modelstore.resolve(name)


def test_bentoml_shows_what_the_artifact_is_made_of(stored_tag: str, fake_artifact: Artifact) -> None:
    info = bentoml.models.get(stored_tag).info
    manifest = fake_artifact.manifest
    assert info.labels == {
        "model": "fake",
        "data": manifest.data.fingerprint[:16],
        "images": "24",
        "captions": "48",
    }
    metadata: Any = info.metadata
    assert metadata["encoder"]["fingerprint"] == manifest.encoder.fingerprint
    assert metadata["data"]["name"] == "squares"
    assert metadata["images"]["factory"] == "Flat"
    assert metadata["captions"]["recall_at_10"] == 1.0


def test_any_model_name_makes_a_valid_label(model_store: Tags, artifact_copy: Artifact) -> None:
    name = f"ViT-B-32 (laion2b_s34b_b79k) é {'x' * 80}"
    encoder = artifact_copy.manifest.encoder.model_copy(update={"name": name})
    renamed = Artifact(artifact_copy.path, artifact_copy.manifest.model_copy(update={"encoder": encoder}))
    label = bentoml.models.get(modelstore.save(renamed)).info.labels["model"]
    assert label.startswith("ViT-B-32")
    assert len(label) <= 63
