"""Artifacts in the BentoML model store: saved under their version, found by tag, described to BentoML's own tools."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import bentoml
import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.errors import ArtifactDamaged, ArtifactNotFound, StorageFailed
from clip_retrieval.work_folder import work_folder

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


@pytest.fixture
def other_disk(model_store: Tags) -> Iterator[Path]:
    """A folder on another file system than that of the store."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == Path(os.environ["BENTOML_HOME"]).stat().st_dev:
        pytest.skip("there is no other file system")
    folder = Path(tempfile.mkdtemp(dir=memory))
    yield folder
    place = Path(os.environ["BENTOML_HOME"]) / "models" / "clip-retrieval"
    place.unlink(missing_ok=True)
    shutil.rmtree(folder)


def test_the_artifacts_may_be_a_link_to_a_folder_of_another_disk(
    model_store: Tags, other_disk: Path, artifact_copy: Artifact
) -> None:
    place = Path(os.environ["BENTOML_HOME"]) / "models" / "clip-retrieval"
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(other_disk / "artifacts")
    (other_disk / "artifacts").mkdir()
    tag = modelstore.save(artifact_copy)
    assert model_store() == [tag]
    assert (other_disk / "artifacts" / tag.partition(":")[2] / "manifest.json").exists()
    modelstore.delete(tag)
    assert [path.name for path in other_disk.iterdir()] in ([], ["artifacts"])


def test_artifacts_that_are_a_disk_of_their_own_are_refused_with_what_to_do(
    other_disk: Path, artifact_copy: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelstore, "_home", lambda: other_disk)
    monkeypatch.setattr(modelstore, "_staging", lambda: artifact_copy.path.with_name("staging"))
    with pytest.raises(StorageFailed, match="is a disk of its own"):
        modelstore.save(artifact_copy)
    Artifact.open(artifact_copy.path)


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


@pytest.mark.parametrize("name", ["clip-retrieval", "clip-retrieval:latest"])
def test_a_name_for_the_newest_is_refused_with_the_tag_that_it_stands_for(stored_tag: str, name: str) -> None:
    with pytest.raises(ArtifactNotFound, match=f"{name} stands for the newest artifact, which is {stored_tag} now"):
        modelstore.ensure_exists(name)


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


def test_artifacts_stand_where_bentoml_looks_for_them(stored_tag: str) -> None:
    (one,) = modelstore.stored()
    assert one.path == Path(bentoml.models.get(stored_tag).path)


class TestDamagedItems:
    """What is no whole model in the store does no harm to the others. Older releases left such folders when killed."""

    @pytest.fixture(params=["nothing", "", "[1, 2]", "{}", "a: [", "name: a\nversion: b\n", "of another", b"\xff\xfe"])
    def bad(self, request: pytest.FixtureRequest, stored_tag: str) -> Iterator[str]:
        """The tag of a folder beside a whole artifact, with what ``model.yaml`` holds; BentoML calls it the latest."""
        home = modelstore.resolve(stored_tag)[1].parent
        folder = home / "0123456789abcdef"
        folder.mkdir()
        content = request.param
        if content == "of another":
            shutil.copy(home / stored_tag.partition(":")[2] / "model.yaml", folder)
        elif content != "nothing":
            (folder / "model.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        (home / "latest").write_text(folder.name)
        yield f"clip-retrieval:{folder.name}"
        shutil.rmtree(folder, ignore_errors=True)

    def test_the_good_ones_are_listed_and_the_bad_one_is_named(self, stored_tag: str, bad: str) -> None:
        assert modelstore.tags() == [stored_tag]
        good, damaged = modelstore.stored()
        assert (good.tag, good.damage) == (stored_tag, None)
        assert damaged.tag == bad
        assert damaged.damage is not None
        assert "model.yaml" in damaged.damage
        assert "\n" not in damaged.damage

    def test_the_newest_is_the_newest_good_one(self, stored_tag: str, bad: str) -> None:
        assert modelstore.resolve("clip-retrieval:latest")[0] == stored_tag
        assert modelstore.resolve("clip-retrieval")[0] == stored_tag

    def test_asked_for_by_name_it_is_refused_with_what_to_do(self, bad: str) -> None:
        with pytest.raises(ArtifactNotFound, match=f"not a whole artifact.*bento-clip artifacts delete {bad}"):
            modelstore.resolve(bad)

    def test_it_can_be_deleted_and_bentoml_reads_its_store_again(self, stored_tag: str, bad: str) -> None:
        modelstore.delete(bad)
        assert [str(model.tag) for model in bentoml.models.list()] == [stored_tag]
        assert str(bentoml.models.get("clip-retrieval").tag) == stored_tag

    def test_the_good_ones_can_be_deleted(self, stored_tag: str, bad: str) -> None:
        modelstore.delete(stored_tag)
        assert [one.tag for one in modelstore.stored()] == [bad]

    def test_saving_under_its_name_replaces_it(self, stored_tag: str, bad: str, fake_artifact: Artifact) -> None:
        folder = modelstore.resolve(stored_tag)[1]
        (folder / "model.yaml").unlink()
        assert modelstore.find(folder.name) is None
        fresh = shutil.copytree(fake_artifact.path, folder.parents[2] / "fresh")
        assert modelstore.save(Artifact.open(Path(fresh))) == stored_tag
        assert modelstore.tags() == [stored_tag]


def test_old_folders_of_older_releases_in_the_temporary_directory_are_removed(
    model_store: Tags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, new = "bentoml-model-clip-retrieval-a", "bentoml-model-clip-retrieval-b"
    for name, age in {old: 7200, new: 60, "mine": 7200}.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    modelstore.tags()
    assert {path.name for path in tmp_path.iterdir()} == {new, "mine"}


def test_a_save_waits_for_another_that_is_in_progress(model_store: Tags, artifact_copy: Artifact) -> None:
    lines: Queue[str] = Queue()
    staging = Path(os.environ["BENTOML_HOME"]) / "clip-retrieval.saving"
    with ThreadPoolExecutor() as pool:
        with work_folder(staging, None, temporary=True):
            waiting = pool.submit(modelstore.save, artifact_copy, lines.put)
            assert f"process {os.getpid()}, since" in lines.get(timeout=30)
            assert modelstore.tags() == [], "reading waits for nobody"
        tag = waiting.result(timeout=30)
        assert model_store() == [tag]


WHOLE = """
import sys
from clip_retrieval.artifacts import modelstore
whole = modelstore.resolve_whole(sys.argv[1])
found = modelstore.resolve(whole[0])
print(whole[0], whole == found, "bentoml" in sys.modules, "numpy" in sys.modules)
"""


@pytest.mark.parametrize("name", ["clip-retrieval", "clip-retrieval:latest", None])
def test_a_whole_artifact_is_found_without_the_libraries_that_read_it(stored_tag: str, name: str | None) -> None:
    command = [sys.executable, "-c", WHOLE, name or stored_tag]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == [
        stored_tag,
        "True",
        "False",
        "False",
    ]
    assert str(bentoml.models.get(name or stored_tag).tag) == stored_tag, "BentoML finds the same"
    assert modelstore.resolve_whole(name or stored_tag) == modelstore.resolve(name or stored_tag)


@pytest.mark.parametrize("name", ["clip-retrieval", "clip-retrieval:latest", None])
def test_a_bento_may_bring_its_artifact(stored_tag: str, tmp_path: Path, name: str | None) -> None:
    stored = modelstore.resolve(stored_tag)[1]
    brought = Path(shutil.copytree(stored.parent, tmp_path / "bento" / "models" / stored.parent.name)) / stored.name
    assert modelstore.in_bento(tmp_path / "bento", name or stored_tag) == (stored_tag, brought)
    assert modelstore.in_bento(tmp_path / "bento", "clip-retrieval:another") is None
    assert modelstore.in_bento(tmp_path, name or stored_tag) is None


def spoil_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text(encoding="utf-8")
    (folder / "manifest.json").write_text(text.replace('"images"', '"imagse"', 1), encoding="utf-8")


def spoil_tag(folder: Path) -> None:
    text = (folder / "model.yaml").read_text(encoding="utf-8")
    (folder / "model.yaml").write_text(text.replace(folder.name, "0123456789abcdef"), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (spoil_manifest, ArtifactDamaged, "manifest.json"),
        (lambda folder: (folder / "manifest.json").unlink(), ArtifactNotFound, "is not an artifact"),
        (spoil_tag, ArtifactNotFound, "is not a whole artifact"),
        (lambda folder: (folder / "model.yaml").unlink(), ArtifactNotFound, "is not a whole artifact"),
    ],
)
def test_what_is_not_whole_is_refused_with_the_reason(
    stored_tag: str, spoil: Callable[[Path], object], error: type[Exception], says: str
) -> None:
    folder = modelstore.resolve(stored_tag)[1]
    spoil(folder)
    with pytest.raises(error, match=says):
        modelstore.resolve_whole(stored_tag)
    shutil.rmtree(folder)  # BentoML lists no store that has such a folder


@pytest.mark.parametrize("name", ["clip-retrieval:latest", "clip-retrieval:..", "no/such/folder", "a b", "a\0b", ""])
def test_what_is_nowhere_is_not_whole_either(model_store: Tags, name: str) -> None:
    with pytest.raises(ArtifactNotFound, match=r"(?s)there is no artifact .*bento-clip build"):
        modelstore.resolve_whole(name)
