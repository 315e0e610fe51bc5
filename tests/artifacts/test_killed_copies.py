"""An export, an import and a clean-up that are killed at any moment leave nothing half (``test_killed_saves.py``)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.artifacts import modelstore, retention
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import read_manifest, write_manifest
from clip_retrieval.artifacts.transfer import export_artifact, import_artifact
from tests.artifacts.test_killed_saves import each_kill, nothing_is_left, whole_in_store

Tags = Callable[[], list[str]]


def ignore(_: int) -> None: ...


@pytest.fixture(scope="module")
def exported(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "artifact.tar"
    export_artifact(fake_artifact, file, ignore)
    return file


@pytest.mark.slow
def test_a_killed_export_leaves_the_whole_file_or_none(fake_artifact: Artifact, exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "artifact.tar"
    file.parent.mkdir()

    def export() -> None:
        export_artifact(fake_artifact, file, ignore)

    for _ in each_kill(export, lambda: file.unlink(missing_ok=True), least=20):
        assert not file.exists() or file.read_bytes() == exported.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == [file.name], "the last one removed what was left"


@pytest.mark.slow
def test_a_killed_import_leaves_the_whole_artifact_or_none(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "artifact"
    folder.parent.mkdir()

    for _ in each_kill(
        lambda: import_artifact(exported, folder, ignore), lambda: shutil.rmtree(folder, ignore_errors=True)
    ):
        if folder.exists():
            Artifact.open_checked(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "the last one removed what was left"


@pytest.mark.slow
def test_a_killed_clean_up_leaves_whole_artifacts(model_store: Tags, fake_artifact: Artifact, tmp_path: Path) -> None:
    old, new = "0" * 16, "1" * 16

    def prepare() -> None:
        for version in (old, new):
            if modelstore.find(version) is None:
                made = Path(shutil.copytree(fake_artifact.path, tmp_path / "made"))
                write_manifest(made, fake_artifact.manifest.model_copy(update={"version": version}))
                modelstore.save(Artifact(made, read_manifest(made)))

    for _ in each_kill(lambda: retention.prune(1), prepare):
        assert len(whole_in_store()) >= 1
        nothing_is_left()
        assert len(modelstore.tags()) >= 1
    assert len(modelstore.tags()) == 1
