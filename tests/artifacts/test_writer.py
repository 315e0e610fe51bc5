"""An artifact is whole or it is not there, and it has every file of its parent that it does not replace."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import RECORDS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec
from clip_retrieval.records import CaptionRecord, ImageRecord

ENCODER = FakeEncoder().info
DATA = DataInfo(
    name="squares",
    fingerprint="ab" * 32,
    images=3,
    captions=5,
    rejected=1,
    splits={"train": 1, "val": 1, "test": 1},
    split_ratios=(0.7, 0.15, 0.15),
    split_seed=0,
)


def write(target: Path, fill: Callable[[Path], None]) -> Artifact:
    built = BuiltIndex(spec=IndexSpec(rows=0, dim=ENCODER.dim))
    return write_artifact(target, version="0123", encoder=ENCODER, data=DATA, images=built, captions=built, fill=fill)


def a_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("a")


class TestWriting:
    def test_every_file_is_in_the_manifest_and_nothing_is_left_beside_the_artifact(self, tmp_path: Path) -> None:
        artifact = write(tmp_path / "made", a_file)
        assert list(artifact.manifest.files) == ["sub/a.txt"]
        assert [path.name for path in tmp_path.iterdir()] == ["made"]
        assert Artifact.open(artifact.path).manifest == artifact.manifest

    def test_a_failure_while_filling_leaves_nothing(self, tmp_path: Path) -> None:
        def fail(folder: Path) -> None:
            a_file(folder)
            raise OSError("no space left on device")

        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "made", fail)
        assert list(tmp_path.iterdir()) == []

    def test_a_failure_while_filling_keeps_the_artifact_that_was_there(self, tmp_path: Path) -> None:
        def fail(folder: Path) -> None:
            raise OSError("no space left on device")

        before = write(tmp_path / "made", a_file)
        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "made", fail)
        assert Artifact.open(before.path).manifest == before.manifest

    def test_the_artifact_has_no_name_until_it_is_complete(self, tmp_path: Path) -> None:
        seen = []

        def look(folder: Path) -> None:
            a_file(folder)
            seen.append((tmp_path / "made").exists())

        write(tmp_path / "made", look)
        assert seen == [False]

    def test_writing_again_replaces_the_artifact(self, tmp_path: Path) -> None:
        write(tmp_path / "made", a_file)
        write(tmp_path / "made", lambda folder: (folder / "b.txt").touch())
        assert list(Artifact.open(tmp_path / "made").manifest.files) == ["b.txt"]
        assert not (tmp_path / "made" / "sub").exists()


def derive(parent: Artifact, target: Path, fill: Callable[[Path], None], replaced: tuple[str, ...] = ()) -> Artifact:
    made = parent.manifest
    return write_artifact(
        target,
        version="4567",
        encoder=made.encoder,
        data=made.data,
        images=made.images,
        captions=made.captions,
        fill=fill,
        parent=parent,
        replaced=replaced,
    )


class TestDeriving:
    def test_every_file_of_the_parent_is_there_whatever_it_is(self, tmp_path: Path) -> None:
        """Files of a kind that this release does not know are copied too."""

        def fill(folder: Path) -> None:
            (folder / "of" / "the").mkdir(parents=True)
            (folder / "of" / "the" / "future.bin").write_bytes(b"future")
            (folder / "audio.faiss").write_text("parent")

        parent = write(tmp_path / "parent", fill)
        child = derive(parent, tmp_path / "child", lambda folder: None)
        assert child.manifest.files == parent.manifest.files
        assert (child.path / "of" / "the" / "future.bin").read_bytes() == b"future"
        assert Artifact.open(child.path).manifest.version == "4567"

    def test_the_child_verifies_when_the_parent_is_gone(self, artifact_copy: Artifact, tmp_path: Path) -> None:
        child = derive(artifact_copy, tmp_path / "child", lambda folder: None)
        shutil.rmtree(artifact_copy.path)
        opened = Artifact.open(child.path)
        assert opened.store().counts() == (24, 48)
        assert opened.has_thumbnails

    def test_files_that_are_not_the_parent_s_are_left_out(self, tmp_path: Path) -> None:
        """BentoML's model store keeps a file of its own beside those of an artifact."""
        parent = write(tmp_path / "parent", a_file)
        (parent.path / "model.yaml").touch()
        assert list(derive(parent, tmp_path / "child", lambda folder: None).manifest.files) == ["sub/a.txt"]

    def test_what_the_child_writes_counts(self, tmp_path: Path) -> None:
        parent = write(tmp_path / "parent", a_file)

        def fill(folder: Path) -> None:
            (folder / "sub").mkdir()
            (folder / "sub" / "a.txt").write_text("b")

        child = derive(parent, tmp_path / "child", fill)
        assert (child.path / "sub" / "a.txt").read_text() == "b"
        assert (parent.path / "sub" / "a.txt").read_text() == "a"
        Artifact.open(parent.path)

    @pytest.mark.parametrize("replaced", ["sub/a.txt", "sub"])
    def test_what_the_child_has_no_more_is_left_out(self, tmp_path: Path, replaced: str) -> None:
        parent = write(tmp_path / "parent", a_file)
        child = derive(parent, tmp_path / "child", lambda folder: (folder / "b.txt").touch(), (replaced,))
        assert list(Artifact.open(child.path).manifest.files) == ["b.txt"]

    def test_new_records_bring_new_arrays(self, artifact_copy: Artifact, tmp_path: Path) -> None:
        """No column of the parent's records is left behind."""

        def fill(folder: Path) -> None:
            with RecordStore.create(folder / RECORDS) as store:
                store.add([ImageRecord(0, "a", "a.png", "0", 1, 1, "train", {})], [CaptionRecord(0, "c", 0, "a")])

        child = derive(artifact_copy, tmp_path / "child", fill)
        assert {name for name in child.manifest.files if name.startswith("columns/")} == {
            "columns/columns.json",
            *(f"columns/0.{part}" for part in ("codes.npy", "values.utf8", "offsets.npy")),
        }
        assert np.load(child.path / "caption_image_rows.npy").tolist() == [0]
        assert child.has_thumbnails

    def test_a_damaged_parent_is_refused(self, artifact_copy: Artifact, tmp_path: Path) -> None:
        """Hashed again, the damage would look right."""
        (artifact_copy.path / "images.npy").write_bytes(b"damage")
        with pytest.raises(ArtifactDamaged, match=r"images\.npy differs from its hash"):
            derive(artifact_copy, tmp_path / "child", lambda folder: None)
        assert not (tmp_path / "child").exists()

    def test_an_artifact_can_replace_its_own_parent(self, artifact_copy: Artifact) -> None:
        child = derive(artifact_copy, artifact_copy.path, lambda folder: (folder / "b.txt").touch())
        assert Artifact.open(child.path).manifest.files.keys() == artifact_copy.manifest.files.keys() | {"b.txt"}

    def test_files_are_copied_where_they_cannot_be_linked(
        self, artifact_copy: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(os, "link", fail)
        child = derive(artifact_copy, tmp_path / "child", lambda folder: None)
        assert Artifact.open(child.path).manifest.files == artifact_copy.manifest.files


def test_records_with_gaps_are_refused(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        with RecordStore.create(folder / RECORDS) as store:
            store.add([ImageRecord(1, "a", "a.png", "0", 1, 1, "train", {})], [])

    with pytest.raises(ArtifactDamaged, match="rows of images have gaps"):
        write(tmp_path / "made", fill)
    assert list(tmp_path.iterdir()) == []
