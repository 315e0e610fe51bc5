"""An artifact whose indexes are in Milvus: complete or not there, the same answers, found again by the next run."""

import csv
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_milvus import drop_versions, index_in_milvus
from clip_retrieval.artifacts.milvus_work import NOTE, begin_filling, collection_name
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.contract.conditions import Condition
from clip_retrieval.contract.queries import text
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactDamaged, IndexAway
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.indexes.milvus_engine import engine_at
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.work_folder import work_folder
from tests.indexes.milvus_lite import EXACT, filled
from tests.samples import NAMES, image_of, write_collection

QUICK = Meter(timed_queries=1, rounds=1, warm_up=0)


@pytest.fixture
def lite(tmp_path: Path) -> str:
    return str(tmp_path / "index.db")


def test_the_artifact_says_where_its_indexes_are_and_passes_its_own_checks(
    fake_artifact: Artifact, lite: str, tmp_path: Path
) -> None:
    made = index_in_milvus(fake_artifact, lite, tmp_path, Silent(), meter=QUICK)
    version = made.manifest.version
    assert version != fake_artifact.manifest.version
    spec = made.manifest.captions.spec
    assert (spec.engine, spec.uri, spec.name) == ("milvus", lite, f"bento_clip_{version}_captions")
    assert (spec.factory, spec.rows, spec.exact) == ("FLAT", 48, False)
    assert made.manifest.images.measured.recalls == {1: 1.0, 10: 1.0, 50: 1.0}
    assert Artifact.open_checked(made.path).is_in_milvus
    assert not list(made.path.glob("*.faiss"))
    engine_at(lite).close()


def test_it_gives_the_answers_of_the_artifact_that_it_was_made_of(
    fake_artifact: Artifact, lite: str, tmp_path: Path
) -> None:
    made = index_in_milvus(fake_artifact, lite, tmp_path, Silent(), meter=QUICK)
    one, other = (Retriever(artifact, FakeEncoder()) for artifact in (fake_artifact, made))
    for where in ({}, {"shade": "dark"}, {"shade": Condition.model_validate({"contains": "L"})}, {"split": "nothing"}):
        for dedupe in (False, True):
            for offset in (0, 7):
                pages = [
                    found.search([text("a red square")], k=9, offset=offset, where=where, dedupe=dedupe)
                    for found in (one, other)
                ]
                assert [hit.image.image_id for hit in pages[0].images] == [
                    hit.image.image_id for hit in pages[1].images
                ]
                assert [hit.score for hit in pages[0].images] == [hit.score for hit in pages[1].images]
                assert pages[0].next_offset == pages[1].next_offset
    other.close()
    engine_at(lite).close()


def test_a_second_run_keeps_what_is_complete_and_writes_what_is_not(
    fake_artifact: Artifact, lite: str, tmp_path: Path
) -> None:
    first = index_in_milvus(fake_artifact, lite, tmp_path / "a", Silent(), meter=QUICK)
    engine = MilvusWriter(lite)
    engine.drop(first.manifest.captions.spec.name or "")
    engine.close()
    stages: list[str] = []

    class Told(Silent):
        def stage(self, description: str, total: int | None):  # type: ignore[no-untyped-def]
            stages.append(description)
            return super().stage(description, total)

    second = index_in_milvus(fake_artifact, lite, tmp_path / "b", Told(), meter=QUICK)
    assert second.manifest.version == first.manifest.version
    assert [stage for stage in stages if stage.startswith("writing")] == [
        "writing captions into Milvus",
        "writing the artifact",
    ]


def test_columns_that_milvus_has_no_fields_for_are_left_to_the_mask(
    encoder_folder: Path, lite: str, tmp_path: Path
) -> None:
    """A server takes 64 fields in a collection. Milvus Lite takes any number, so they are counted here."""
    source = tmp_path / "wide"
    source.mkdir()
    with (source / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", *(f"c{number:02}" for number in range(40))])
        for place, name in enumerate(NAMES):
            image_of(name).save(source / name)
            rows.writerow([name, f"a {name}", *(f"v{(place + number) % 3}" for number in range(40))])
    plain = build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact
    made = index_in_milvus(plain, lite, tmp_path, Silent(), meter=QUICK)
    client = engine_at(lite).asked(lambda client: client)
    for built in (made.manifest.images, made.manifest.captions):
        assert len(client.describe_collection(built.spec.name)["fields"]) <= 64
    for where in ({"c35": "v1"}, {"c03": "v1", "c38": "v0"}, {"split": "train"}):
        pages = [Retriever(one, FakeEncoder()).search([text("red")], k=9, where=where) for one in (plain, made)]
        assert [hit.image.image_id for hit in pages[0].images] == [hit.image.image_id for hit in pages[1].images]
    engine_at(lite).close()


def test_a_graph_is_chosen_by_its_recall_and_filters_of_many_rows_reach_milvus(
    fake_artifact: Artifact, lite: str, tmp_path: Path
) -> None:
    made = index_in_milvus(fake_artifact, lite, tmp_path, Silent(), meter=QUICK, always_flat_rows=10)
    built = made.manifest.images
    assert built.spec.factory == "HNSW"
    assert built.spec.search_parameters["ef"] >= 64
    assert (built.measured.recall or 0) >= 0.99
    engine_at(lite).close()


def test_the_place_can_be_another_one_than_the_manifest_says(
    fake_artifact: Artifact, lite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index_in_milvus(fake_artifact, lite, tmp_path, Silent(), meter=QUICK)
    query: Vectors = made.vectors("images")[:1]
    other = str(tmp_path / "other.db")
    with pytest.raises(IndexAway, match=r"other.db does not answer: it has no collection bento_clip_"):
        replace(made, index_uri=other).index("images").search(query, 3)
    monkeypatch.setenv("BENTO_CLIP_INDEX_URI", other)
    assert Artifact.open(made.path).index_uri == other
    np.testing.assert_array_equal(made.index("images").search(query, 3).rows[0, :1], [0])
    engine_at(lite).close()
    engine_at(other).close()


def test_an_index_without_a_place_is_refused(fake_artifact: Artifact) -> None:
    spec = fake_artifact.manifest.images.spec.model_copy(update={"engine": "milvus", "name": "c"})
    built = fake_artifact.manifest.images.model_copy(update={"spec": spec})
    nowhere = replace(fake_artifact, manifest=fake_artifact.manifest.model_copy(update={"images": built}))
    with pytest.raises(ArtifactDamaged, match="set BENTO_CLIP_INDEX_URI"):
        nowhere.index("images")


def test_a_collection_without_captions_has_an_empty_index(encoder_folder: Path, lite: str, tmp_path: Path) -> None:
    source = write_collection(tmp_path / "squares")
    (source / "captions.csv").unlink()
    plain = build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact
    made = index_in_milvus(plain, lite, tmp_path, Silent(), meter=QUICK)
    assert made.manifest.captions.rows == 0
    assert made.index("captions").search(made.vectors("images")[:1], 3).rows.shape == (1, 0)
    assert made.index("images").search(made.vectors("images")[:1], 3).rows.shape == (1, 3)
    engine_at(lite).close()


@pytest.mark.slow
def test_what_milvus_has_of_deleted_versions_goes(fake_artifact: Artifact, lite: str, tmp_path: Path) -> None:
    first = index_in_milvus(fake_artifact, lite, tmp_path, Silent(), meter=QUICK)
    second = index_in_milvus(fake_artifact, lite, tmp_path, Silent(), meter=QUICK, recall=0.5)
    drop_versions(lite, [first.manifest.version, "0000000000000000"])
    with closing(MilvusWriter(lite)) as engine:
        assert engine.count(first.manifest.images.spec.name or "") is None
        assert engine.count(first.manifest.captions.spec.name or "") is None
        assert engine.count(second.manifest.images.spec.name or "") == 24


@pytest.mark.slow
def test_what_a_run_that_was_killed_has_left_in_milvus_is_dropped_by_the_next(
    fake_artifact: Artifact, lite: str, tmp_path: Path
) -> None:
    """The killed run has filled the images and half of the captions; another one is still at work."""
    engine = MilvusWriter(lite)
    killed, running = tmp_path / "killed.compact", tmp_path / "running.compact"
    for folder in (killed, running):
        folder.mkdir()
        version = folder.name[:6]
        begin_filling(engine, folder, version, lite)
        filled(engine, fake_artifact.vectors("images"), EXACT, name=collection_name(version, "images"))

        def half() -> Iterator[list[dict[str, object]]]:
            yield [{"row": 0, "vector": fake_artifact.vectors("captions")[0]}]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.fill(collection_name(version, "captions"), fake_artifact.manifest.encoder.dim, {}, half(), EXACT)
    elsewhere = tmp_path / "elsewhere.compact"
    elsewhere.mkdir()
    (elsewhere / NOTE).write_text('{"version": "0", "place": "http://milvus:19530"}')
    with work_folder(running, None), work_folder(tmp_path / "mine", None) as work:
        made = index_in_milvus(fake_artifact, lite, tmp_path / "out", Silent(), meter=QUICK, work=work)
    found = engine.asked(lambda client: set(client.list_collections()))
    assert {name[:-2] for name in found} == {
        "bento_clip_runnin_images",
        "bento_clip_runnin_captions",
        made.manifest.images.spec.name,
        made.manifest.captions.spec.name,
    }
    assert not killed.exists()
    assert running.exists()
    assert elsewhere.exists()
    engine.close()
