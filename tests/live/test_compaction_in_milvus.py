"""Changes over a base in Milvus become an artifact that is in the same Milvus, beside the base."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_milvus import drop_versions, index_in_milvus
from clip_retrieval.errors import IndexAway
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.measure import Meter
from clip_retrieval.indexes.milvus_engine import engine_at
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.compaction import compact
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.progress import Silent
from clip_retrieval.records import MODALITIES
from clip_retrieval.search.collection import Collection
from tests.live.bases import live_image, write_base
from tests.live.test_compaction import answers

SAID = "http://milvus:19530"
AWAY = "http://127.0.0.1:1"
CHANGES = [
    LogEntry(1, "base-3", None),
    LogEntry(2, "base-5", live_image("base-5", 105, captions=["changed"], metadata={"year": 9}, split="val")),
    LogEntry(3, "new-1", live_image("new-1", 101, captions=["one", "two"], metadata={"new": True, "word": "dog"})),
    LogEntry(4, "gone", live_image("gone", 102, captions=["gone"])),
    LogEntry(5, "gone", None),
]


@pytest.fixture
def plain(tmp_path: Path) -> Artifact:
    images = [
        live_image(f"base-{n}", n, captions=[f"caption {n}.{k}" for k in range(n % 3)], metadata={"year": n % 6})
        for n in range(40)
    ]
    return write_base(tmp_path / "base", images)


@pytest.mark.slow
def test_the_answers_stay_and_each_version_has_its_own_collections(plain: Artifact, tmp_path: Path) -> None:
    lite = str(tmp_path / "index.db")
    quick = Meter(timed_queries=1, rounds=1, warm_up=0)
    base = replace(index_in_milvus(plain, lite, tmp_path, Silent(), meter=quick, place=SAID), index_uri=lite)
    with closing(LiveCollection.of(Collection(base))) as first:
        state = first.with_changes(CHANGES)
        made = compact(state, tmp_path / "out", Silent())
        with closing(LiveCollection.of(Collection(replace(made, index_uri=lite)))) as again:
            assert [again.count(target) for target in MODALITIES] == [40, 40]
            assert answers(again) == answers(state)
    assert (made.manifest.parent, made.manifest.sequence) == (base.manifest.version, 5)
    assert [spec.uri for spec in specs(made)] == [SAID, SAID], "as the base says, wherever Milvus is now"
    assert Artifact.open_checked(made.path).manifest == made.manifest
    assert [path.name for path in (tmp_path / "out").iterdir()] == [made.manifest.version], "no work is left"
    drop_versions(lite, [base.manifest.version])
    with closing(MilvusWriter(lite)) as engine:
        assert [engine.count(spec.name or "") for spec in specs(base)] == [None, None]
        assert [engine.count(spec.name or "") for spec in specs(made)] == [40, 40]
    engine_at(lite).close()


def test_without_milvus_nothing_is_written(plain: Artifact, tmp_path: Path) -> None:
    built = {
        name: one.model_copy(
            update={"spec": one.spec.model_copy(update={"engine": "milvus", "uri": AWAY, "name": "c"})}
        )
        for name, one in (("images", plain.manifest.images), ("captions", plain.manifest.captions))
    }
    base = replace(plain, manifest=plain.manifest.model_copy(update=built))
    with (
        closing(LiveCollection.of(Collection(base))) as first,
        pytest.raises(IndexAway, match=f"Milvus at {AWAY} does not answer"),
    ):
        compact(first.with_changes(CHANGES), tmp_path / "out", Silent())
    assert list((tmp_path / "out").iterdir()) == []


def specs(artifact: Artifact) -> list[IndexSpec]:
    return [artifact.manifest.images.spec, artifact.manifest.captions.spec]
