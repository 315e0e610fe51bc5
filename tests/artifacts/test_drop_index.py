"""What Milvus has of a deleted version goes with it. What cannot go is named, and the version is deleted."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.artifacts import modelstore, retention
from clip_retrieval.artifacts.artifact import INDEX_URI, Artifact
from clip_retrieval.artifacts.drop_index import drop_indexes
from clip_retrieval.artifacts.in_milvus import index_in_milvus
from clip_retrieval.artifacts.manifest import Manifest, write_manifest
from clip_retrieval.artifacts.slim import without_vectors
from clip_retrieval.errors import ArtifactError
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.progress import Silent
from tests.indexes.milvus_lite import EXACT, filled

QUICK = Meter(timed_queries=1, rounds=1, warm_up=0)
Tags = Callable[[], list[str]]


@pytest.fixture
def lite(tmp_path: Path) -> str:
    return str(tmp_path / "index.db")


@pytest.fixture
def tags(fake_artifact: Artifact, lite: str, tmp_path: Path, model_store: Tags) -> list[str]:
    """Two versions of one collection in the model store, the older one first, with their indexes in ``lite``."""
    made = [
        index_in_milvus(fake_artifact, lite, tmp_path / f"{recall}", Silent(), meter=QUICK, recall=recall)
        for recall in (0.5, 0.6)
    ]
    return [modelstore.save(one) for one in made]


def counts(lite: str, tags: list[str]) -> list[int | None]:
    """How many images and captions the collections of each version have, None for one that is not there."""
    with closing(MilvusWriter(lite)) as engine:
        return [
            engine.count(f"bento_clip_{tag.partition(':')[2]}_{modality}")
            for tag in tags
            for modality in ("images", "captions")
        ]


def manifest(artifact: Artifact, version: str, uri: str | None) -> Manifest:
    """The manifest of a version whose collections are at ``uri``."""
    described = artifact.manifest.model_dump()
    for modality in ("images", "captions"):
        described[modality]["spec"] |= {"engine": "milvus", "uri": uri, "name": f"bento_clip_{version}_{modality}"}
    return Manifest.model_validate(described | {"version": version})


@pytest.mark.slow
def test_a_deleted_version_goes_from_milvus_and_no_other_does(tags: list[str], lite: str, model_store: Tags) -> None:
    said: list[str] = []
    retention.delete(tags[0], said.append)
    assert model_store() == [tags[1]]
    assert counts(lite, tags) == [None, None, 24, 48]
    assert said == []


@pytest.mark.slow
def test_pruned_versions_go_from_milvus_and_a_dry_run_drops_nothing(tags: list[str], lite: str) -> None:
    retention.prune(1, dry_run=True)
    assert counts(lite, tags) == [24, 48, 24, 48]
    assert [one.tag for one in retention.prune(1)] == [tags[0]]
    assert counts(lite, tags) == [None, None, 24, 48]


def test_a_version_whose_collections_one_without_vectors_searches_stays(
    fake_artifact: Artifact, artifact_copy: Artifact, model_store: Tags, tmp_path: Path
) -> None:
    """Its collections would go with it, and a service over the other one would find nothing."""
    write_manifest(artifact_copy.path, manifest(fake_artifact, "0" * 16, "http://127.0.0.1:1"))
    whole = Artifact.open(artifact_copy.path)
    slim = without_vectors(whole, tmp_path / "slim")
    tags = [modelstore.save(one) for one in (whole, slim)]
    (kept,) = retention.prune(1)
    assert (kept.tag, kept.stays) == (tags[0], f"{tags[1]} has no vectors, and searches its collections in Milvus")
    with pytest.raises(ArtifactError, match=f"{tags[1]} has no vectors, and searches .* delete it first"):
        retention.delete(tags[0])
    retention.delete(tags[1])
    retention.delete(tags[0])
    assert model_store() == []


def test_the_place_of_the_environment_counts_more_than_that_of_the_manifest(
    fake_artifact: Artifact, lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = fake_artifact.vectors("images")[:3]
    with closing(MilvusWriter(lite)) as engine:
        filled(engine, vectors, EXACT, name="bento_clip_a1_images")
    monkeypatch.setenv(INDEX_URI, lite)
    said: list[str] = []
    drop_indexes([manifest(fake_artifact, "a1", "http://127.0.0.1:1")], said.append)
    assert counts(lite, ["clip-retrieval:a1"]) == [None, None]
    assert said == []


@pytest.mark.slow
def test_a_version_whose_engine_is_away_is_deleted_and_its_collections_are_named(
    tags: list[str], lite: str, tmp_path: Path, model_store: Tags
) -> None:
    said: list[str] = []
    Path(lite).rename(tmp_path / "away.db")
    retention.delete(tags[0], said.append)
    assert model_store() == [tags[1]]
    version = tags[0].partition(":")[2]
    (line,) = said
    assert line.startswith(
        f"collections are left in Milvus: bento_clip_{version}_images, bento_clip_{version}_captions "
        f"(there is no Milvus Lite at {lite}); drop them later: python -c "
    )
    assert f"drop_versions('{lite}', ['{version}'])" in line
    assert not Path(lite).exists()


def test_one_line_names_what_is_left_of_all_versions_in_one_milvus_without_its_password(
    fake_artifact: Artifact,
) -> None:
    said: list[str] = []
    versions = [manifest(fake_artifact, version, "http://127.0.0.1:2") for version in ("a1", "b2")]
    drop_indexes(versions, said.append, uri="http://me:secret@127.0.0.1:1")
    (line,) = said
    assert "Milvus at http://127.0.0.1:1 does not answer" in line
    assert "drop_versions('http://127.0.0.1:1', ['a1', 'b2'])" in line
    assert "secret" not in line


def test_a_version_that_no_place_is_known_of_says_what_to_set(fake_artifact: Artifact) -> None:
    said: list[str] = []
    drop_indexes([manifest(fake_artifact, "a1", None)], said.append)
    assert f"set {INDEX_URI}" in said[0]


def test_a_version_that_faiss_searches_asks_no_milvus(
    stored_tag: str, model_store: Tags, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv(INDEX_URI, "http://127.0.0.1:1")
    retention.delete(stored_tag, said.append)
    assert (model_store(), said) == ([], [])
