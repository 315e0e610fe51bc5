"""An artifact is whole or it is not there: written atomically, described by its manifest, checked when it is opened."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_retrieval.artifacts.artifact import NEEDED, RECORDS, THUMBNAILS, Artifact
from clip_retrieval.artifacts.manifest import file_sha256, write_manifest
from clip_retrieval.artifacts.manifest_file import MANIFEST, SCHEMA_VERSION
from clip_retrieval.artifacts.record_store import MIGRATIONS
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import (
    ArtifactDamaged,
    ArtifactError,
    ArtifactNotFound,
    ArtifactSchema,
    EncoderMismatch,
)
from clip_retrieval.indexes.base import BuiltIndex

ENCODER = FakeEncoder().info


def change_manifest(artifact: Artifact, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    path = artifact.path / MANIFEST
    outer = json.loads(path.read_text())
    change(outer)
    path.write_text(json.dumps(outer))


def sentence(error: pytest.ExceptionInfo[ArtifactError]) -> str:
    """The error's message, which is one line and says what to do."""
    message = str(error.value)
    assert "\n" not in message
    assert "build" in message
    return message


class TestOpening:
    def test_an_artifact_holds_all_that_answers_queries(self, fake_artifact: Artifact) -> None:
        artifact = Artifact.open(fake_artifact.path)
        assert artifact.manifest == fake_artifact.manifest
        assert artifact.encoder().info == ENCODER
        assert artifact.vectors("images").shape == (24, ENCODER.dim)
        assert artifact.vectors("captions").shape == (48, ENCODER.dim)
        assert artifact.index("captions").spec == artifact.manifest.captions.spec
        assert artifact.store().counts() == (24, 48)

    def test_a_flipped_byte_in_any_file_is_refused(self, artifact_copy: Artifact) -> None:
        files = [path for path in artifact_copy.path.rglob("*") if path.is_file()]
        assert len(files) >= 5, "manifest, encoder, two matrices, records"
        for path in files:
            good = path.read_bytes()
            for at in (0, len(good) // 2, len(good) - 1):
                bad = bytearray(good)
                bad[at] ^= 1
                path.write_bytes(bad)
                with pytest.raises(ArtifactDamaged) as error:
                    Artifact.open(artifact_copy.path)
                assert path.name in sentence(error)
            path.write_bytes(good)
        Artifact.open(artifact_copy.path)

    def test_a_missing_file_is_refused(self, artifact_copy: Artifact) -> None:
        for name in artifact_copy.manifest.files:
            path = artifact_copy.path / name
            good = path.read_bytes()
            path.unlink()
            with pytest.raises(ArtifactDamaged, match="is missing") as error:
                Artifact.open(artifact_copy.path)
            assert path.name in sentence(error)
            path.write_bytes(good)

    @pytest.mark.parametrize("name", ["nothing here", "empty"])
    def test_a_folder_without_a_manifest_is_no_artifact(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(ArtifactNotFound, match="is not an artifact") as error:
            Artifact.open(tmp_path / name)
        sentence(error)

    def test_another_schema_version_is_refused_whatever_else_is_in_the_manifest(self, artifact_copy: Artifact) -> None:
        future = {"manifest": {"schema_version": SCHEMA_VERSION + 1, "a field of the future": True}}
        (artifact_copy.path / MANIFEST).write_text(json.dumps(future))
        with pytest.raises(
            ArtifactSchema, match=f"schema version {SCHEMA_VERSION + 1}, .* reads {SCHEMA_VERSION}"
        ) as e:
            Artifact.open(artifact_copy.path)
        sentence(e)

    @pytest.mark.parametrize(
        "change",
        [
            lambda outer: outer["manifest"]["data"].update(images=23),
            lambda outer: outer["manifest"].update(version="0" * 16),
            lambda outer: outer["manifest"]["files"].pop("images.npy"),
            lambda outer: outer["manifest"].update(note="added by hand"),
            lambda outer: outer.pop("sha256"),
            lambda outer: outer["manifest"].pop("encoder"),
            lambda outer: outer.pop("manifest"),
            lambda outer: outer.update(manifest=[]),
        ],
        ids=["count", "version", "file removed", "field added", "no hash", "field removed", "nothing", "no object"],
    )
    def test_an_edited_manifest_is_refused(
        self, artifact_copy: Artifact, change: Callable[[dict[str, dict[str, object]]], object]
    ) -> None:
        change_manifest(artifact_copy, change)
        with pytest.raises(ArtifactDamaged, match=MANIFEST) as error:
            Artifact.open(artifact_copy.path)
        sentence(error)

    @pytest.mark.parametrize(
        "content",
        [
            b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"manifest": 1}',
            b"[" * 200_000,
            b'{"manifest": ' + b'{"a": ' * 100_000,
            b'{"manifest": {"schema_version": 3, "deep": ' + b"[" * 900 + b"]" * 900 + b"}}",
            b'{"manifest": {"schema_version": 3, "deep": ' + b"[" * 900 + b"]" * 900 + b'}, "sha256": "0"}',
        ],
    )  # fmt: skip
    def test_a_manifest_that_is_none_is_refused(self, artifact_copy: Artifact, content: bytes) -> None:
        (artifact_copy.path / MANIFEST).write_bytes(content)
        with pytest.raises(ArtifactDamaged, match=r"cannot be read|is damaged") as error:
            Artifact.open(artifact_copy.path)
        sentence(error)

    def test_checking_the_files_can_be_left_to_a_later_time(self, artifact_copy: Artifact) -> None:
        (artifact_copy.path / "images.npy").unlink()
        Artifact.open(artifact_copy.path, verify=False)

    def test_records_of_another_number_than_vectors_are_refused(self, artifact_copy: Artifact) -> None:
        spec = artifact_copy.manifest.images.spec
        fewer = BuiltIndex(spec=spec.model_copy(update={"rows": 23}))
        manifest = artifact_copy.manifest.model_copy(update={"images": fewer})
        with pytest.raises(ArtifactDamaged, match="other numbers of records and vectors") as error:
            Artifact(artifact_copy.path, manifest).store()
        sentence(error)


class TestEncoder:
    def test_a_foreign_encoder_is_refused(self, fake_artifact: Artifact) -> None:
        fake_artifact.check_encoder(FakeEncoder())
        with pytest.raises(EncoderMismatch, match="vectors were made by fake") as error:
            fake_artifact.check_encoder(FakeEncoder(seed=1))
        assert FakeEncoder(seed=1).info.fingerprint[:12] in sentence(error)

    def test_an_exchanged_encoder_inside_the_artifact_is_refused(self, fake_artifact: Artifact) -> None:
        foreign = fake_artifact.manifest.encoder.model_copy(update={"fingerprint": "0" * 64})
        artifact = Artifact(fake_artifact.path, fake_artifact.manifest.model_copy(update={"encoder": foreign}))
        with pytest.raises(EncoderMismatch):
            artifact.encoder()


def rewritten(artifact: Artifact, file: str, write: Callable[[Path], object]) -> Artifact:
    """The artifact with another file, whose hash the manifest knows: as a faulty or hostile program would write it."""
    (artifact.path / file).unlink(missing_ok=True)
    write(artifact.path / file)
    files = {name: file_sha256(artifact.path / name) for name in artifact.manifest.files}
    write_manifest(artifact.path, artifact.manifest.model_copy(update={"files": files}))
    return artifact


def saves(array: NDArray[Any]) -> Callable[[Path], object]:
    return lambda path: np.save(path, array, allow_pickle=True)


DIM = ENCODER.dim
NAN = np.full((24, DIM), 0.25, np.float32)
NAN[7, 3] = np.nan
INFINITE = np.full((24, DIM), 0.25, np.float32)
INFINITE[0, 0], INFINITE[0, 1] = np.inf, -np.inf


class TestContents:
    """Files as the manifest says can still be such as no search can use."""

    @pytest.mark.parametrize(
        ("file", "array", "said"),
        [
            ("images.npy", np.empty((24, DIM), object), "cannot be read"),
            ("images.npy", np.zeros((24, DIM), np.float64), "float64"),
            ("images.npy", np.zeros((23, DIM), np.float32), "instead of float32"),
            ("images.npy", np.zeros((24, DIM + 1), np.float32), "instead of float32"),
            ("images.npy", np.zeros(24 * DIM, np.float32), "instead of float32"),
            ("images.npy", np.asfortranarray(np.zeros((24, DIM), np.float32)), "row by row"),
            ("images.npy", NAN, "not finite"),
            ("images.npy", INFINITE, "not finite"),
            ("captions.npy", np.zeros((24, DIM), np.float32), "instead of float32"),
            ("caption_image_rows.npy", np.full(48, 24, np.int32), "names images that are not there"),
            ("caption_image_rows.npy", np.full(48, -1, np.int32), "names images that are not there"),
            ("caption_image_rows.npy", np.zeros(47, np.int32), "instead of int32"),
            ("content_numbers.npy", np.empty(24, object), "cannot be read"),
            ("columns/1.codes.npy", np.zeros(23, np.int32), "has 23 rows"),
        ],
    )
    def test_arrays_that_no_search_can_use_are_refused(
        self, artifact_copy: Artifact, file: str, array: NDArray[Any], said: str
    ) -> None:
        rewritten(artifact_copy, file, saves(array))
        with pytest.raises(ArtifactDamaged, match=said) as error:
            Artifact.open_checked(artifact_copy.path)
        sentence(error)

    def test_records_without_tables_are_refused(self, artifact_copy: Artifact) -> None:
        def write(path: Path) -> None:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

        rewritten(artifact_copy, RECORDS, write)
        with pytest.raises(ArtifactDamaged, match="no such table") as error:
            Artifact.open_checked(artifact_copy.path)
        sentence(error)

    @pytest.mark.parametrize("left_out", [NEEDED, *((name,) for name in NEEDED)])
    def test_a_manifest_that_does_not_name_what_is_needed_is_refused(
        self, artifact_copy: Artifact, left_out: tuple[str, ...]
    ) -> None:
        files = {name: digest for name, digest in artifact_copy.manifest.files.items() if name not in left_out}
        write_manifest(artifact_copy.path, artifact_copy.manifest.model_copy(update={"files": files}))
        with pytest.raises(ArtifactDamaged, match=f"lacks {left_out[0]}") as error:
            Artifact.open_checked(artifact_copy.path)
        sentence(error)


def test_the_manifest_says_what_the_artifact_was_made_of(fake_artifact: Artifact) -> None:
    manifest = fake_artifact.manifest
    assert manifest.encoder == ENCODER
    assert (manifest.data.name, manifest.data.images, manifest.data.captions) == ("squares", 24, 48)
    assert sum(manifest.data.splits.values()) == 24
    assert manifest.libraries["numpy"] == np.__version__
    assert "faiss-cpu" in manifest.libraries
    columns = {"columns.json", *(f"{i}.{part}" for i in (0, 1) for part in ("codes.npy", "values.utf8", "offsets.npy"))}
    assert set(manifest.files) == {
        "images.npy",
        "captions.npy",
        RECORDS,
        "caption_image_rows.npy",
        "content_numbers.npy",
        *(f"columns/{name}" for name in columns),
        THUMBNAILS,
        "confidence.json",
        *(f"words/{name}" for name in ("words.sqlite", "images.npy", "captions.npy")),
        "encoder/encoder.json",
    }


def test_an_artifact_can_be_moved(artifact_copy: Artifact, tmp_path: Path) -> None:
    moved = Path(shutil.move(artifact_copy.path, tmp_path / "elsewhere"))
    assert Artifact.open(moved).store().counts() == (24, 48)
