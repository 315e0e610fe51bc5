"""An artifact without its vectors answers as the one that it was made of, and does nothing else."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.drop_index import drop_indexes
from clip_retrieval.artifacts.in_milvus import index_in_milvus
from clip_retrieval.artifacts.promises import check_promises
from clip_retrieval.artifacts.slim import without_vectors
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.contract.queries import image_id, text
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactError, IndexAway
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.indexes.milvus_engine import engine_at
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever

AWAY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def whole(fake_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Artifact]:
    folder = tmp_path_factory.mktemp("milvus")
    lite = str(folder / "index.db")
    yield index_in_milvus(fake_artifact, lite, folder, Silent(), meter=Meter(timed_queries=1, rounds=1, warm_up=0))
    engine_at(lite).close()


@pytest.fixture(scope="module")
def slim(whole: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return without_vectors(whole, tmp_path_factory.mktemp("slim"))


def test_it_is_a_version_of_its_own_with_every_file_but_the_vectors(whole: Artifact, slim: Artifact) -> None:
    assert set(whole.manifest.files) - set(slim.manifest.files) == {"images.npy", "captions.npy"}
    assert slim.manifest.version != whole.manifest.version
    assert (slim.manifest.images, slim.manifest.captions) == (whole.manifest.images, whole.manifest.captions)
    assert Artifact.open_checked(slim.path).manifest == slim.manifest


def test_its_answers_are_those_of_the_whole_artifact(whole: Artifact, slim: Artifact) -> None:
    one, other = (Retriever(artifact, FakeEncoder()) for artifact in (whole, slim))
    for query in ([text("a red square")], [text("a blue square"), image_id("red-bright.png", -0.4)]):
        for where in ({}, {"shade": "dark"}):
            for dedupe in (False, True):
                for offset in (0, 7):
                    pages = [
                        retriever.search(query, k=9, offset=offset, where=where, dedupe=dedupe)
                        for retriever in (one, other)
                    ]
                    assert pages[0].images == pages[1].images
                    assert pages[0].next_offset == pages[1].next_offset
    one.close()
    other.close()


def test_what_needs_the_vectors_says_that_there_are_none(slim: Artifact, fake_artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"has no vectors, they are in Milvus: it can be served, and nothing else"):
        slim.vectors("images")
    with pytest.raises(ArtifactError, match="only what is built with --index milvus can be without"):
        without_vectors(fake_artifact, slim.path.parent)
    with closing(KnownArtifacts([slim], slim.manifest.encoder)) as known:
        assert not known.has("images", bytes.fromhex(first_hash(fake_artifact)))
    with closing(KnownArtifacts([fake_artifact], slim.manifest.encoder)) as known:
        assert known.has("images", bytes.fromhex(first_hash(fake_artifact)))


def first_hash(artifact: Artifact) -> str:
    with closing(artifact.store()) as store:
        return store.images([0])[0].content_hash


def test_it_may_take_over_if_milvus_has_its_collections(slim: Artifact) -> None:
    assert check_promises(slim) == []
    with pytest.raises(IndexAway, match=f"Milvus at {AWAY} does not answer"):
        check_promises(replace(slim, index_uri=AWAY))


def test_a_deleted_version_without_vectors_leaves_the_collections_to_the_whole_one(
    whole: Artifact, slim: Artifact
) -> None:
    said: list[str] = []
    drop_indexes([slim.manifest], said.append)
    drop_indexes([slim.manifest], said.append, uri=AWAY)
    assert said == []
    with closing(MilvusWriter(whole.milvus)) as engine:
        assert engine.count(whole.manifest.images.spec.name or "") == 24
