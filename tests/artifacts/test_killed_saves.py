"""A process that is killed while it changes the model store leaves nothing half, and no artifact is lost.

A child process kills itself before its first, second, third … operation on files, until it gets through. So every
moment is tried, and the same moments each time.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import bentoml
import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ArtifactNotFound

STORE = Path(os.environ["BENTOML_HOME"])
ON_FILES = ("open", "os.", "shutil.", "tempfile.", "fcntl.")
Tags = Callable[[], list[str]]


def killed_at(moment: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that is killed before its ``moment``-th operation on files; False if it got through."""
    child = os.fork()
    if child == 0:
        left = moment

        def count(event: str, _: object) -> None:
            nonlocal left
            if event.startswith(ON_FILES):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}, f"the child failed with status {status}"
    return status != 0


def each_kill(work: Callable[[], object], prepare: Callable[[], object], *, least: int = 30) -> Iterator[int]:
    """Kill ``work`` at every moment, from the same start each time; yields the moment after each kill.

    There must be more than ``least`` moments: fewer would mean that they are not seen any more.
    """
    for moment in range(1, 10_000):
        prepare()
        if not killed_at(moment, work):
            break
        yield moment
    assert moment > least, "there were hardly any moments"


def whole_in_store() -> list[str]:
    """The versions in the store as another program sees it, before any command of ours. All are whole."""
    home = STORE / "models" / modelstore.NAME
    if not home.exists():
        return []
    versions = [path.name for path in home.iterdir() if path.is_dir()]
    assert sorted(str(model.tag) for model in bentoml.models.list()) == sorted(map(modelstore.tag_of, versions))
    for version in versions:
        assert Artifact.open(home / version).manifest.version == version
    if versions:
        assert bentoml.models.get(modelstore.NAME).tag.version in versions
    return versions


def nothing_is_left() -> None:
    """The next command has removed what was left."""
    modelstore.tags()
    assert {path.name for path in STORE.iterdir()} <= {"bentos", "models", "tmp", "envs", "prometheus_multiproc_dir"}
    home = STORE / "models" / modelstore.NAME
    if home.exists():
        assert {path.name for path in home.iterdir() if not path.is_dir()} <= {"latest"}


@pytest.fixture
def other(stored_tag: str, fake_artifact: Artifact) -> str:
    """The version of another artifact, which is in the store all the time."""
    return fake_artifact.manifest.version


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of this test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("model_store")
def test_a_killed_save_leaves_the_whole_artifact_in_its_folder_or_in_the_store(
    fake_artifact: Artifact, tmp_path: Path, temporary: Path
) -> None:
    version, folder = fake_artifact.manifest.version, tmp_path / "made"

    def prepare() -> None:
        if modelstore.find(version):
            modelstore.delete(modelstore.tag_of(version))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fake_artifact.path, folder)

    for moment in each_kill(lambda: modelstore.save(Artifact(folder, fake_artifact.manifest)), prepare):
        if not whole_in_store():
            assert Artifact.open(folder), f"lost at moment {moment}"
        nothing_is_left()
        assert list(temporary.iterdir()) == []
        if modelstore.tags():
            assert modelstore.resolve(modelstore.LATEST)[0] == modelstore.tag_of(version)


@pytest.mark.slow
def test_a_save_that_replaces_and_is_killed_leaves_the_old_one_or_the_new_one(
    other: str, fake_artifact: Artifact, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    copy = Artifact(folder, fake_artifact.manifest)

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(fake_artifact.path, folder)

    for _ in each_kill(lambda: modelstore.save(copy), prepare):
        assert set(whole_in_store()) <= {other}
        nothing_is_left()
        assert whole_in_store() == [other], "what had stepped aside is back"


@pytest.mark.slow
def test_a_killed_deletion_leaves_the_whole_artifact_or_nothing(
    model_store: Tags, fake_artifact: Artifact, tmp_path: Path
) -> None:
    tag = modelstore.tag_of(fake_artifact.manifest.version)

    def prepare() -> None:
        if not modelstore.tags():
            shutil.copytree(fake_artifact.path, tmp_path / "made")
            modelstore.save(Artifact(tmp_path / "made", fake_artifact.manifest))

    for _ in each_kill(lambda: modelstore.delete(tag), prepare):
        whole_in_store()
        nothing_is_left()
    with pytest.raises(ArtifactNotFound):
        modelstore.delete(tag)
