"""Files that versions have in common are stored once, and each version stays whole without the others."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import bentoml
import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.sharing import sizes
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.progress import Silent

Tags = Callable[[], list[str]]


@pytest.fixture
def other(collection: Path, encoder_folder: Path, tmp_path: Path) -> Artifact:
    """Another version of the collection: the same vectors, another split."""
    return build(collection, encoder_folder, tmp_path / "other", Options(seed=1), Silent()).artifact


def inode(folder: Path, name: str) -> int:
    return (folder / name).stat().st_ino


SAME = ("encoder/encoder.json", "images.npy", "captions.npy", "thumbnails.sqlite")


def test_equal_files_are_stored_once_and_the_others_apart(stored_tag: str, other: Artifact) -> None:
    first = modelstore.resolve(stored_tag)[1]
    second = modelstore.resolve(modelstore.save(other))[1]
    assert all(inode(first, name) == inode(second, name) for name in SAME)
    assert all(inode(first, name) != inode(second, name) for name in ("records.sqlite", "manifest.json", "model.yaml"))
    assert Artifact.open(second).manifest == other.manifest
    whole, own = sizes(second)
    assert whole - own >= sum((second / name).stat().st_size for name in SAME)


def test_sizes_count_a_file_as_own_when_no_name_outside_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x").write_bytes(b"1234")
    (folder / "y").hardlink_to(folder / "x")
    assert sizes(folder) == (8, 4)
    (tmp_path / "z").hardlink_to(folder / "x")
    assert sizes(folder) == (8, 0)


@pytest.mark.parametrize("by", ["bento-clip", "bentoml"])
def test_a_version_stays_whole_when_the_other_is_deleted(stored_tag: str, other: Artifact, by: str) -> None:
    tag = modelstore.save(other)
    if by == "bentoml":
        bentoml.models.delete(stored_tag)
    else:
        modelstore.delete(stored_tag)
    folder = modelstore.resolve(tag)[1]
    Artifact.open(folder)
    whole, own = sizes(folder)
    assert whole == own


def test_bentoml_exports_and_imports_a_version_that_shares_files(
    stored_tag: str, model_store: Tags, other: Artifact, tmp_path: Path
) -> None:
    tag = modelstore.save(other)
    bentoml.models.export_model(tag, str(tmp_path / "one.bentomodel"))
    for one in (tag, stored_tag):
        bentoml.models.delete(one)
    bentoml.models.import_model(str(tmp_path / "one.bentomodel"))
    assert model_store() == [tag]
    assert Artifact.open(modelstore.resolve(tag)[1]).manifest == other.manifest


def test_a_damaged_file_is_not_shared(stored_tag: str, other: Artifact) -> None:
    first = modelstore.resolve(stored_tag)[1]
    content = (first / "images.npy").read_bytes()
    (first / "images.npy").write_bytes(bytes([content[0] ^ 1]) + content[1:])
    second = modelstore.resolve(modelstore.save(other))[1]
    assert inode(first, "images.npy") != inode(second, "images.npy")
    Artifact.open(second)


def test_where_files_cannot_be_linked_they_are_copied_and_that_is_said(
    stored_tag: str, other: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    said: list[str] = []
    second = modelstore.resolve(modelstore.save(other, said.append))[1]
    assert len(said) == 1
    assert "cannot link files (Operation not permitted)" in said[0]
    Artifact.open(second)
    assert inode(modelstore.resolve(stored_tag)[1], "images.npy") != inode(second, "images.npy")


def test_saving_does_not_say_anything_where_nothing_is_equal(model_store: Tags, artifact_copy: Artifact) -> None:
    said: list[str] = []
    modelstore.save(artifact_copy, said.append)
    assert said == []


def test_files_that_go_while_sizes_are_taken_count_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b/1", "a/b/2", "a/3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    walk = os.walk

    def deleting(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for parent, folders, names in walk(folder):
            if "b" in folders:
                shutil.rmtree(tmp_path / "a" / "b")
            if names == ["3"]:
                (tmp_path / "a" / "3").unlink()
            yield parent, folders, names

    monkeypatch.setattr(os, "walk", deleting)
    assert sizes(tmp_path) == (0, 0)
