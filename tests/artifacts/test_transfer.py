"""An artifact as one file: what comes back is what went in, and nothing else is ever believed or written."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest_file import MANIFEST, json_sha256
from clip_retrieval.artifacts.transfer import export_artifact, import_artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactDamaged, ArtifactSchema
from clip_retrieval.search.retriever import Retriever

Members = list[tuple[tarfile.TarInfo, bytes]]


def ignore(_: int) -> None: ...


@pytest.fixture(scope="session")
def exported(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "artifact.tar"
    export_artifact(fake_artifact, file, ignore)
    return file


def members(file: Path) -> Members:
    with tarfile.open(file) as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def write(file: Path, contents: Members) -> Path:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in contents:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def with_manifest(file: Path, source: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """A file whose manifest was changed by someone who knows how its hash is made."""
    (first, text), *rest = members(source)
    manifest = json.loads(text)["manifest"]
    change(manifest)
    body = json.dumps({"sha256": json_sha256(manifest), "manifest": manifest}).encode()
    return write(file, [(first, body), *rest])


def refused(file: Path, tmp_path: Path) -> str:
    """The one sentence that an import ends with; it must leave nothing behind."""
    target = tmp_path / "imports" / "artifact"
    with pytest.raises(ArtifactDamaged) as caught:
        import_artifact(file, target, ignore)
    assert list(target.parent.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_comes_back_is_the_same_and_answers_the_same(
    exported: Path, fake_artifact: Artifact, retriever: Retriever, tmp_path: Path
) -> None:
    artifact = import_artifact(exported, tmp_path / "artifact", ignore)
    assert artifact.manifest == fake_artifact.manifest
    assert Artifact.open(tmp_path / "artifact").manifest == fake_artifact.manifest
    assert Retriever(artifact, FakeEncoder()).search_images("a red square") == retriever.search_images("a red square")


def test_two_exports_are_equal_byte_for_byte(exported: Path, fake_artifact: Artifact, tmp_path: Path) -> None:
    export_artifact(fake_artifact, tmp_path / "again.tar", ignore)
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.tar"]


def test_progress_counts_every_byte_of_the_files(exported: Path, fake_artifact: Artifact, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in fake_artifact.path.rglob("*") if path.is_file())
    out: list[int] = []
    back: list[int] = []
    export_artifact(fake_artifact, tmp_path / "again.tar", out.append)
    import_artifact(exported, tmp_path / "artifact", back.append)
    assert (sum(out), sum(back)) == (size, size)


def test_a_file_that_exists_is_not_written_over(exported: Path, fake_artifact: Artifact) -> None:
    before = exported.read_bytes()
    with pytest.raises(FileExistsError, match="exists already; choose a new name"):
        export_artifact(fake_artifact, exported, ignore)
    assert exported.read_bytes() == before


def test_an_export_that_fails_leaves_no_file(artifact_copy: Artifact, tmp_path: Path) -> None:
    (artifact_copy.path / "records.sqlite").unlink()
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(FileNotFoundError):
        export_artifact(artifact_copy, target / "artifact.tar", ignore)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 10_240])
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.tar").write_bytes(content)
    assert "file.tar" in refused(tmp_path / "file.tar", tmp_path)


def test_a_tar_of_something_else_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "other.tar", [(tarfile.TarInfo("hello.txt"), b"hello")])
    assert "does not begin with a manifest.json" in refused(file, tmp_path)


def test_a_changed_file_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    contents = [(m, b"x" + data[1:] if m.name == "images.npy" else data) for m, data in members(exported)]
    assert "images.npy" in refused(write(tmp_path / "changed.tar", contents), tmp_path)


def test_a_missing_file_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    contents = [(m, data) for m, data in members(exported) if m.name != "records.sqlite"]
    assert "lacks records.sqlite" in refused(write(tmp_path / "short.tar", contents), tmp_path)


@pytest.mark.parametrize("name", ["extra.txt", "../evil.txt", "/tmp/evil.txt", "images.npy"])
def test_a_file_that_the_manifest_does_not_name_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    """Another one of a name that was there already is one too many, too."""
    contents = [*members(exported), (tarfile.TarInfo(name), b"evil")]
    assert "does not name" in refused(write(tmp_path / "more.tar", contents), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_only_regular_files_are_read(exported: Path, tmp_path: Path, kind: bytes) -> None:
    special = tarfile.TarInfo("images.npy")
    special.type, special.linkname = kind, "/etc/passwd"
    contents = [(special, b"") if m.name == "images.npy" else (m, data) for m, data in members(exported)]
    assert "images.npy" in refused(write(tmp_path / "special.tar", contents), tmp_path)


def test_a_sparse_file_that_would_unpack_to_any_size_is_refused(exported: Path, tmp_path: Path) -> None:
    contents = members(exported)
    for member, _ in contents:
        if member.name == "images.npy":
            member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50), "GNU.sparse.numblocks": "1"}
    assert "images.npy" in refused(write(tmp_path / "sparse.tar", contents), tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "a//b", "./a", "a\\..\\evil", "C:evil", "", "manifest.json", ".."]
)
def test_a_manifest_that_names_a_place_outside_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    def change(manifest: dict[str, object]) -> None:
        manifest["files"] = {name: "0" * 64}

    file = with_manifest(tmp_path / "evil.tar", exported, change)
    assert "outside an artifact" in refused(file, tmp_path)


@pytest.mark.parametrize("version", ["../../evil", "", "latest", "A" * 16])
def test_a_version_that_no_build_gives_is_refused(exported: Path, tmp_path: Path, version: str) -> None:
    file = with_manifest(tmp_path / "evil.tar", exported, lambda manifest: manifest.update(version=version))
    assert "version" in refused(file, tmp_path)


def test_a_file_that_names_no_files_is_refused(exported: Path, tmp_path: Path) -> None:
    (first, text), *_ = members(with_manifest(tmp_path / "a.tar", exported, lambda manifest: manifest.update(files={})))
    assert "holds no whole artifact: it lacks images.npy" in refused(
        write(tmp_path / "empty.tar", [(first, text)]), tmp_path
    )


def test_the_file_that_only_bentoml_writes_is_refused(exported: Path, tmp_path: Path) -> None:
    yaml = b"name: clip-retrieval"

    def change(manifest: dict[str, object]) -> None:
        files = manifest["files"]
        assert isinstance(files, dict)
        files["model.yaml"] = hashlib.sha256(yaml).hexdigest()

    changed = members(with_manifest(tmp_path / "a.tar", exported, change))
    file = write(tmp_path / "yaml.tar", [*changed, (tarfile.TarInfo("model.yaml"), yaml)])
    assert "model.yaml" in refused(file, tmp_path)


@pytest.mark.parametrize("rows", [23, 25, 0, -1, 2**40])
def test_wrong_numbers_of_rows_are_refused(exported: Path, tmp_path: Path, rows: int) -> None:
    def change(manifest: dict[str, object]) -> None:
        images = manifest["images"]
        assert isinstance(images, dict)
        images["spec"]["rows"] = rows

    assert "holds no whole artifact" in refused(with_manifest(tmp_path / "rows.tar", exported, change), tmp_path)


@pytest.mark.parametrize("array", [np.empty((24, 16), object), np.full((24, 16), np.nan, np.float32)])
def test_vectors_that_no_search_can_use_are_refused(exported: Path, tmp_path: Path, array: NDArray[Any]) -> None:
    """By someone who knows how the hashes are made."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)

    def change(manifest: dict[str, object]) -> None:
        files = manifest["files"]
        assert isinstance(files, dict)
        files["images.npy"] = hashlib.sha256(buffer.getvalue()).hexdigest()

    changed = members(with_manifest(tmp_path / "a.tar", exported, change))
    contents = [(m, buffer.getvalue() if m.name == "images.npy" else data) for m, data in changed]
    assert "holds no whole artifact: images.npy" in refused(write(tmp_path / "bad.tar", contents), tmp_path)


def test_another_schema_version_is_named(exported: Path, tmp_path: Path) -> None:
    file = with_manifest(tmp_path / "new.tar", exported, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(ArtifactSchema, match="99"):
        import_artifact(file, tmp_path / "imports" / "artifact", ignore)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_whatever_gets_through(
    exported: Path, fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(exported.read_bytes())
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    del content[end:]
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=3)):
        if content:
            content[place] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "file.tar").write_bytes(content)
    try:
        artifact = import_artifact(folder / "file.tar", folder / "artifact", ignore)
    except ArtifactDamaged:
        assert [path.name for path in folder.iterdir()] == ["file.tar"]
    else:  # the damage was in a place without meaning, such as the padding
        assert Artifact.open(artifact.path).manifest == fake_artifact.manifest
        assert {path.relative_to(artifact.path).as_posix() for path in artifact.path.rglob("*") if path.is_file()} == {
            *fake_artifact.manifest.files,
            MANIFEST,
        }
