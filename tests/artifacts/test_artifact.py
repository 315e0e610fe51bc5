"""An artifact is whole or it is not there: written atomically, described by its manifest, checked when it is opened."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.artifact import (
    MANIFEST,
    RECORDS,
    SCHEMA_VERSION,
    THUMBNAILS,
    Artifact,
    DataInfo,
    Manifest,
    artifact_version,
    write_artifact,
)
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import (
    ArtifactDamaged,
    ArtifactError,
    ArtifactNotFound,
    ArtifactSchema,
    EncoderMismatch,
)
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec, Measurement

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

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"manifest": 1}'])
    def test_a_manifest_that_is_none_is_refused(self, artifact_copy: Artifact, content: bytes) -> None:
        (artifact_copy.path / MANIFEST).write_bytes(content)
        with pytest.raises(ArtifactDamaged, match="cannot be read") as error:
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
        fake_artifact.require(FakeEncoder())
        with pytest.raises(EncoderMismatch, match="vectors were made by fake") as error:
            fake_artifact.require(FakeEncoder(seed=1))
        assert FakeEncoder(seed=1).info.fingerprint[:12] in sentence(error)

    def test_an_exchanged_encoder_inside_the_artifact_is_refused(self, fake_artifact: Artifact) -> None:
        foreign = fake_artifact.manifest.encoder.model_copy(update={"fingerprint": "0" * 64})
        artifact = Artifact(fake_artifact.path, fake_artifact.manifest.model_copy(update={"encoder": foreign}))
        with pytest.raises(EncoderMismatch):
            artifact.encoder()


class TestVersion:
    def test_is_the_same_for_the_same_inputs(self) -> None:
        version = artifact_version(ENCODER, DATA, 0.99)
        assert version == artifact_version(ENCODER.model_copy(), DATA.model_copy(), 0.99)
        assert len(version) == 16
        assert set(version) <= set("0123456789abcdef")

    @pytest.mark.parametrize("field", sorted(DataInfo.model_fields))
    def test_changes_with_each_fact_of_the_data(self, field: str) -> None:
        other: dict[str, object] = {
            "name": "circles",
            "fingerprint": "cd" * 32,
            "splits": {"train": 3, "val": 0, "test": 0},
            "split_ratios": (0.8, 0.1, 0.1),
        }
        changed = DATA.model_copy(update={field: other.get(field, 99)})
        assert artifact_version(ENCODER, changed, 0.99) != artifact_version(ENCODER, DATA, 0.99)

    @pytest.mark.parametrize("field", sorted(EncoderInfo.model_fields))
    def test_changes_with_each_fact_of_the_encoder(self, field: str) -> None:
        other: dict[str, object] = {
            "name": "other",
            "runtime": "torch",
            "precisions": ("f32", "int8"),
            "image_size": (9, 9),
            "fingerprint": "cd" * 32,
        }
        changed = ENCODER.model_copy(update={field: other.get(field, 99)})
        assert artifact_version(changed, DATA, 0.99) != artifact_version(ENCODER, DATA, 0.99)

    def test_changes_with_the_recall_that_is_asked_for(self) -> None:
        assert artifact_version(ENCODER, DATA, 0.9) != artifact_version(ENCODER, DATA, 0.99)


counts = st.integers(0, 2**40)
figures = st.none() | st.floats(0, 1e6)
built_indexes = st.builds(
    BuiltIndex,
    spec=st.builds(
        IndexSpec,
        factory=st.sampled_from(["Flat", "HNSW16,SQ8"]),
        build_parameters=st.dictionaries(st.sampled_from(["efConstruction"]), counts),
        search_parameters=st.dictionaries(st.sampled_from(["efSearch", "nprobe"]), counts),
        depth=st.integers(64, 1000),
        rows=counts,
        dim=counts,
    ),
    measured=st.builds(
        Measurement,
        recalls=st.dictionaries(st.sampled_from([1, 10, 50]), st.floats(0, 1)),
        queries=counts,
        query_kind=st.sampled_from(["captions", "images", None]),
        p50_ms=figures,
        p99_ms=figures,
        build_s=figures,
        memory_mb=figures,
    ),
)
texts = st.text(max_size=20)
manifests = st.builds(
    Manifest,
    version=texts,
    created=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    product_version=texts,
    encoder=st.builds(
        EncoderInfo,
        name=texts,
        runtime=st.sampled_from(["torch", "openvino", "fake"]),
        dim=counts,
        context_length=counts,
        image_size=st.tuples(counts, counts),
        logit_scale=st.floats(0, 1e6),
        fingerprint=texts,
    ),
    data=st.builds(
        DataInfo,
        name=texts,
        fingerprint=texts,
        images=counts,
        captions=counts,
        rejected=counts,
        splits=st.dictionaries(texts, counts, max_size=3),
        split_ratios=st.tuples(*[st.floats(0, 1)] * 3),
        split_seed=st.integers(-(2**40), 2**40),
    ),
    images=built_indexes,
    captions=built_indexes,
    libraries=st.dictionaries(texts, texts, max_size=3),
    files=st.dictionaries(texts, texts, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(manifests)
def test_any_manifest_comes_back_from_json_as_it_was(manifest: Manifest) -> None:
    assert Manifest.model_validate(json.loads(json.dumps(manifest.model_dump(mode="json")))) == manifest


def test_the_manifest_says_what_the_artifact_was_made_of(fake_artifact: Artifact) -> None:
    manifest = fake_artifact.manifest
    assert manifest.encoder == ENCODER
    assert (manifest.data.name, manifest.data.images, manifest.data.captions) == ("squares", 24, 48)
    assert sum(manifest.data.splits.values()) == 24
    assert manifest.libraries["numpy"] == np.__version__
    assert "faiss-cpu" in manifest.libraries
    assert {"images.npy", "captions.npy", RECORDS, THUMBNAILS, "encoder/encoder.json"} == set(manifest.files)


def test_an_artifact_can_be_moved(artifact_copy: Artifact, tmp_path: Path) -> None:
    moved = Path(shutil.move(artifact_copy.path, tmp_path / "elsewhere"))
    assert Artifact.open(moved).store().counts() == (24, 48)
