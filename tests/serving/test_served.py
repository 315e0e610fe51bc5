"""What can be served with which settings, where the index is in Milvus."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import file_sha256, write_manifest
from clip_retrieval.contract.queries import text
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.encoders.inputs import Inputs
from clip_retrieval.errors import ArtifactDamaged, ArtifactError, ArtifactNotFound, EncoderMismatch, ModelUnavailable
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Engine
from clip_retrieval.serving.remote_engine import RemoteEngine
from clip_retrieval.serving.served import Loader, Served, check_engine, second_model_bytes
from clip_retrieval.serving.settings import Settings
from tests.cached import flags_of
from tests.serving.test_remote_engine import FakeService


def in_milvus(artifact: Artifact, uri: str) -> Artifact:
    """``artifact`` with the manifest of one in Milvus; nothing is written anywhere."""
    manifest = artifact.manifest
    built = {
        name: one.model_copy(
            update={"spec": one.spec.model_copy(update={"engine": "milvus", "uri": uri, "name": name})}
        )
        for name, one in (("images", manifest.images), ("captions", manifest.captions))
    }
    return Artifact(artifact.path, manifest.model_copy(update=built))


def test_a_milvus_lite_is_served_by_one_process(fake_artifact: Artifact) -> None:
    lite = in_milvus(fake_artifact, "/data/index.db")
    check_engine(lite, Settings(), 1)
    with pytest.raises(ArtifactError, match=r"/data/index.db is a Milvus Lite, .* 2 workers; set BENTO_CLIP_WORKERS=1"):
        check_engine(lite, Settings(), 2)
    check_engine(in_milvus(fake_artifact, "http://milvus:19530"), Settings(), 8)
    with pytest.raises(ArtifactError, match=r"other\.db is a Milvus Lite"):
        check_engine(in_milvus(fake_artifact, "http://milvus:19530"), Settings(index_uri="other.db"), 8)


def test_a_collection_in_milvus_takes_changes(fake_artifact: Artifact, tmp_path: Path) -> None:
    settings = Settings(changes=tmp_path)
    check_engine(in_milvus(fake_artifact, "http://milvus:19530"), settings, 2)
    check_engine(in_milvus(fake_artifact, "/data/index.db"), settings, 1)


def test_the_setting_says_where_the_index_of_what_is_served_is(fake_artifact: Artifact) -> None:
    loaded = Loader(Settings(index_uri="http://milvus:19530"), 1)(str(fake_artifact.path))
    assert loaded.retriever.collection.artifact.index_uri == "http://milvus:19530"
    loaded.retriever.close()


def test_an_artifact_without_vectors_takes_no_changes(fake_artifact: Artifact, tmp_path: Path) -> None:
    whole = in_milvus(fake_artifact, "http://milvus:19530")
    files = {
        name: digest for name, digest in whole.manifest.files.items() if not name.startswith(("images", "captions"))
    }
    slim = Artifact(whole.path, whole.manifest.model_copy(update={"files": files}))
    check_engine(slim, Settings(), 2)
    with pytest.raises(ArtifactError, match="has no vectors, which a collection that takes changes needs"):
        check_engine(slim, Settings(changes=tmp_path), 2)


@pytest.mark.parametrize("given", ["milvus", "redis://host"])
def test_what_is_no_place_of_a_milvus_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is no place of a Milvus"):
        Settings(index_uri=given)


def test_a_secret_is_not_shown(fake_artifact: Artifact) -> None:
    assert "secret" not in repr(Settings(index_uri="http://me:secret@milvus:19530"))
    assert "secret" not in repr(Artifact(fake_artifact.path, fake_artifact.manifest, "http://me:secret@milvus:19530"))


class AnotherEncoder(FakeEncoder):
    """The fake encoder by another name."""

    def __init__(self) -> None:
        super().__init__()
        self.info = self.info.model_copy(update={"name": "another"})


def test_a_second_model_takes_about_as_much_memory_as_its_files_have_and_a_shared_one_none(
    fake_artifact: Artifact, artifact_copy: Artifact
) -> None:
    def served(encoder: FakeEncoder) -> Served:
        return Served("a tag", Retriever(fake_artifact, FakeEncoder()), Engine(lambda: encoder))

    files = sum(file.stat().st_size for file in (artifact_copy.path / "encoder").iterdir())
    (artifact_copy.path / "encoder" / "text.bin").write_bytes(bytes(1000))
    assert second_model_bytes(artifact_copy.path, served(AnotherEncoder())) == files + 1000
    assert second_model_bytes(artifact_copy.path, served(FakeEncoder())) == 0


def test_an_encoder_that_was_begun_is_taken_by_the_call_that_opens_its_artifact(fake_artifact: Artifact) -> None:
    loader = Loader(Settings(), 1)
    loader.begin(fake_artifact.path)
    first = loader(str(fake_artifact.path))
    assert first.engine.encoder.info == fake_artifact.manifest.encoder
    second = loader(str(fake_artifact.path))
    assert second.engine is not first.engine, "once"
    for served in (first, second):
        served.retriever.close()


def test_an_encoder_that_was_begun_for_another_artifact_is_not_taken(
    fake_artifact: Artifact, artifact_copy: Artifact
) -> None:
    loader = Loader(Settings(), 1)
    shutil.rmtree(artifact_copy.path / "encoder")
    loader.begin(artifact_copy.path)
    served = loader(str(fake_artifact.path))
    assert served.folder == fake_artifact.path
    served.retriever.close()


def test_what_was_wrong_with_a_begun_encoder_is_said_by_the_call(artifact_copy: Artifact) -> None:
    loader = Loader(Settings(), 1)
    (artifact_copy.path / "encoder" / "encoder.json").write_text("{}")
    loader.begin(artifact_copy.path)
    with pytest.raises(ModelUnavailable, match=r"encoder\.json cannot be read"):
        loader(str(artifact_copy.path), verify=False)
    (artifact_copy.path / "manifest.json").unlink()
    loader.begin(artifact_copy.path)
    with pytest.raises(ArtifactNotFound, match="is not an artifact"):
        loader(str(artifact_copy.path))


def test_where_another_service_encodes_no_encoder_is_loaded_and_another_model_is_refused(
    fake_artifact: Artifact, artifact_copy: Artifact
) -> None:
    loader = Loader(Settings(), 1)
    loader.ask(FakeService())
    first = loader(str(fake_artifact.path))
    assert isinstance(first.engine, RemoteEngine)
    assert isinstance(first.engine.encoder, Inputs)
    again = loader(str(artifact_copy.path), first)
    assert again.engine is first.engine
    write_manifest(artifact_copy.path, artifact_copy.manifest.model_copy(update={"encoder": AnotherEncoder().info}))
    with pytest.raises(EncoderMismatch, match="has the model another, and the encoder service has fake: start both"):
        loader(str(artifact_copy.path), first, verify=False)
    for served in (first, again):
        served.retriever.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels are not told")
@pytest.mark.parametrize("fits", [False, True])
def test_rows_are_read_alone_where_the_artifact_is_larger_than_memory(artifact_copy: Artifact, fits: bool) -> None:
    limit = artifact_copy.size() if fits else artifact_copy.size() - 1
    served = Loader(Settings(), 1, limit=lambda: limit)(str(artifact_copy.path))
    assert served.retriever.search([text("a red square")], k=1).images
    assert ("rr" in flags_of(artifact_copy.path / "records.sqlite")) != fits
    served.retriever.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fits", [False, True])
def test_indexes_are_copied_where_memory_holds_those_of_two_artifacts_too(
    artifact_copy: Artifact, workers: int, fits: bool
) -> None:
    index = artifact_copy.path / "images.faiss"
    index.write_bytes(bytes(1000))
    named = {**artifact_copy.manifest.files, index.name: file_sha256(index)}
    write_manifest(artifact_copy.path, artifact_copy.manifest.model_copy(update={"files": named}))
    limit = Artifact.open(artifact_copy.path).size() + 2 * workers * 1000 - (not fits)
    copied: list[Path] = []
    loader = Loader(Settings(), 1, workers, limit=lambda: limit, copy=copied.extend)
    loader(str(artifact_copy.path)).retriever.close()
    assert copied == ([index] if fits else [])


def test_an_index_that_cannot_be_copied_is_a_damaged_artifact(artifact_copy: Artifact) -> None:
    def fail(_: Iterable[Path]) -> None:
        raise OSError("Input/output error")

    with pytest.raises(ArtifactDamaged, match=r"cannot be read \(Input/output error\); restore"):
        Loader(Settings(), 1, copy=fail)(str(artifact_copy.path))
