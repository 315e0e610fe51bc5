"""A compacted artifact gives the answers of the state that it was made of, and has nothing of what was removed."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import THUMBNAILS, Artifact
from clip_retrieval.artifacts.confidence import CONFIDENCE, CaptionTerm, Curve, Curves, write_curves
from clip_retrieval.artifacts.manifest import file_sha256, write_manifest
from clip_retrieval.artifacts.reindex import tune
from clip_retrieval.artifacts.thumbnails import Thumbnails
from clip_retrieval.contract.queries import search_request
from clip_retrieval.contract.queries import text as part
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ArtifactDamaged, StorageFailed
from clip_retrieval.indexes.sweep import Budget
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.compaction import compact
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.progress import Silent
from clip_retrieval.records import MODALITIES
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from tests.live.bases import live_image, units, write_base

IMAGES = 40


@pytest.fixture
def base(tmp_path: Path) -> Artifact:
    images = [
        live_image(
            f"base-{n}", n, captions=[f"caption {n}.{k}" for k in range(n % 3)], metadata={"year": n % 6, "a": "b"}
        )
        for n in range(IMAGES)
    ]
    return write_base(tmp_path / "base", images, factory="HR16,PQ16x4fs")


@pytest.fixture
def state(base: Artifact) -> Iterator[LiveCollection]:
    """Images were removed, changed, changed again, and added; one of them has the pixels of one of the base."""
    with closing(LiveCollection.of(Collection(base))) as first:
        yield first.with_changes(
            [
                LogEntry(1, "base-3", None),
                LogEntry(
                    2, "base-5", live_image("base-5", 105, captions=["changed"], metadata={"year": 9}, split="val")
                ),
                LogEntry(3, "new-1", live_image("new-1", 101, captions=["one", "two"], metadata={"new": True})),
                LogEntry(4, "gone", live_image("gone", 102, captions=["gone"])),
            ]
        ).with_changes(
            [
                LogEntry(6, "gone", None),
                LogEntry(7, "new-1", live_image("new-1", 103, captions=["three"], metadata={"new": False}, pixels=7)),
                LogEntry(8, "new-2", live_image("new-2", 104, metadata={"year": 3, "word": "dog"})),
            ]
        )


def answers(collection: SearchableCollection) -> list[object]:
    """What it says to many searches, by ids and not by rows."""
    said: list[object] = []
    searching = Retriever(collection.artifact, FakeEncoder())
    for target in MODALITIES:
        for seed in range(12):
            for where in (None, {"year": {"gte": 3}}, {"new": False}, {"split": "val"}, {"word": None}):
                for dedupe in (False, True):
                    conditions = None if where is None else search_request([part("x")], where=where).where
                    query = Query((QueryPart("x"),), target, 60, dedupe=dedupe, where=conditions)
                    outcome = searching.answer(query, units(1, seed), collection=collection)
                    said.append([(hit.score, hit.duplicates) for hit in outcome.hits])
                    said.append(collection.fragments(target, [hit.row for hit in outcome.hits]))
    searching.close()
    return said


def test_the_artifact_gives_the_answers_of_the_state(state: LiveCollection, tmp_path: Path) -> None:
    artifact = compact(state, tmp_path / "out", Silent())
    Artifact.open(artifact.path)
    with closing(LiveCollection.of(Collection(artifact))) as again:
        assert again.fields == state.fields
        assert [again.count(target) for target in MODALITIES] == [state.count(target) for target in MODALITIES]
        ids = state.page_of_ids(None, 100)
        assert again.page_of_ids(None, 100) == ids
        for image_id in ids:
            before, after = state.get(image_id), again.get(image_id)
            assert before is not None
            assert after is not None
            assert np.array_equal(before.vector, after.vector)
            assert np.array_equal(before.caption_vectors, after.caption_vectors)
            assert before.thumbnail == after.thumbnail
            assert state.etag(image_id) == again.etag(image_id)
        assert answers(again) == answers(state)
        assert [image.image_id for image, _ in again.sample(100)] == [image.image_id for image, _ in state.sample(100)]


def test_the_manifest_says_what_it_holds(state: LiveCollection, base: Artifact, tmp_path: Path) -> None:
    manifest = compact(state, tmp_path / "out", Silent()).manifest
    assert (manifest.parent, manifest.sequence) == ("base", 8)
    assert (manifest.data.images, manifest.data.captions) == (IMAGES + 1, state.count("captions"))
    assert manifest.data.splits == {"train": IMAGES, "val": 1, "test": 0}
    assert manifest.encoder == base.manifest.encoder
    assert {path.name for path in (tmp_path / "out").iterdir()} == {manifest.version}, "nothing else is left there"


def test_later_changes_come_on_top(state: LiveCollection, tmp_path: Path) -> None:
    later = [
        LogEntry(8, "new-2", live_image("new-2", 999)),
        LogEntry(9, "base-7", live_image("base-7", 300, captions=["later"])),
        LogEntry(10, "base-8", None),
    ]
    artifact = compact(state, tmp_path / "out", Silent())
    with closing(LiveCollection.of(Collection(artifact))) as again:
        assert (again.sequence, again.version) == (8, artifact.manifest.version)
        assert again.with_changes(later[:1]) is again, "the artifact has this change"
        after, expected = again.with_changes(later), state.with_changes(later)
        assert (after.sequence, after.version) == (10, f"{artifact.manifest.version}+10")
        assert answers(after) == answers(expected)


def test_a_field_of_the_artifact_stays_until_the_next_compaction_also_without_values(
    state: LiveCollection, tmp_path: Path
) -> None:
    where = search_request([part("x")], where={"new": True}).where
    assert where is not None
    with closing(Collection(compact(state, tmp_path / "once", Silent()))) as base:
        left = LiveCollection.of(base).with_changes([LogEntry(state.sequence + 1, "new-1", None)])
        (field,) = [field for field in left.fields if field.name == "new"]
        assert (field.type, field.count) == ("boolean", 0)
        assert left.field_types["new"] == "boolean"
        found = left.allowed("images", where)
        assert found is not None
        assert not found.any()
        with closing(Collection(compact(left, tmp_path / "twice", Silent()))) as again:
            assert "new" not in [field.name for field in again.fields]


def test_the_same_state_gives_the_same_artifact(state: LiveCollection, base: Artifact, tmp_path: Path) -> None:
    first = compact(state, tmp_path / "one", Silent())
    with closing(LiveCollection.of(Collection(base))) as opened:
        entries = [LogEntry(1, "base-3", None)]
        for number, name in ((2, "base-5"), (7, "new-1"), (8, "new-2")):
            entries.append(LogEntry(number, name, state.get(name)))
            if number == 2:
                entries.append(LogEntry(6, "gone", None))
        again = compact(opened.with_changes(entries), tmp_path / "two", Silent())
        other = compact(opened.with_changes(entries[:1]), tmp_path / "two", Silent())
    assert first.manifest.version == again.manifest.version != other.manifest.version
    assert first.manifest.files == again.manifest.files


def test_what_was_removed_is_in_no_file(state: LiveCollection, tmp_path: Path) -> None:
    artifact = compact(state, tmp_path / "out", Silent())
    gone = (
        live_image("base-3", 3).vector.tobytes(),
        live_image("base-5", 5).vector.tobytes(),
        live_image("gone", 102).vector.tobytes(),
        b"small base-3 3",
        b"small gone 102",
        b"base-3.png",
        b"gone.png",
    )
    for name in artifact.manifest.files:
        data = (artifact.path / name).read_bytes()
        assert not [part for part in gone if part in data], name


def test_the_encoder_is_shared_with_the_base(state: LiveCollection, base: Artifact, tmp_path: Path) -> None:
    artifact = compact(state, tmp_path / "out", Silent())
    names = [name for name in base.manifest.files if name.startswith("encoder/")]
    assert names
    for name in names:
        assert (artifact.path / name).samefile(base.path / name)


def test_an_image_without_a_thumbnail_has_none_afterwards(base: Artifact, tmp_path: Path) -> None:
    with closing(LiveCollection.of(Collection(base))) as first:
        image = live_image("bare", 200)
        bare = type(image)(**{name: getattr(image, name) for name in image.__slots__} | {"thumbnail": None})
        artifact = compact(first.with_changes([LogEntry(1, "bare", bare)]), tmp_path / "out", Silent())
    with closing(Collection(artifact)) as again:
        assert again.image("bare") is not None
        assert again.thumbnail("bare", "small") is None
        assert again.thumbnail("base-1", "small") == b"small base-1 1"


def test_a_file_with_thumbnails_that_were_made_in_an_earlier_way_says_so(base: Artifact, tmp_path: Path) -> None:
    with closing(sqlite3.connect(base.path / THUMBNAILS)) as connection:
        connection.executescript("PRAGMA user_version = 1")
    with closing(LiveCollection.of(Collection(base))) as first:
        state = first.with_changes([LogEntry(1, "new", live_image("new", 200))])
        artifact = compact(state, tmp_path / "out", Silent())
    with closing(Thumbnails.open(artifact.path / THUMBNAILS)) as thumbnails:
        assert thumbnails.made_as == 1


def test_a_collection_of_which_all_was_removed_is_an_artifact_too(base: Artifact, tmp_path: Path) -> None:
    with closing(LiveCollection.of(Collection(base))) as first:
        empty = first.with_changes([LogEntry(n + 1, f"base-{n}", None) for n in range(IMAGES)])
        artifact = compact(empty, tmp_path / "out", Silent())
    with closing(LiveCollection.of(Collection(artifact))) as again:
        assert [again.count(target) for target in MODALITIES] == [0, 0]
        assert again.sample(3) == []
        assert again.page_of_ids(None, 5) == []
        more = again.with_changes([LogEntry(IMAGES + 1, "new", live_image("new", 300, captions=["x"]))])
        assert [image.image_id for image, _ in more.sample(3)] == ["new"]
        assert more.index("images").search(units(1, 1), 5).rows.tolist() == [[0]]


def test_an_index_chosen_anew_keeps_what_the_manifest_says(state: LiveCollection, tmp_path: Path) -> None:
    artifact = compact(state, tmp_path / "out", Silent())
    tuned = tune(artifact, Budget(), tmp_path / "tuned", Silent()).artifact
    assert tuned is not None
    assert (tuned.manifest.parent, tuned.manifest.sequence) == ("base", 8)


def test_a_damaged_base_is_refused_and_nothing_is_left(state: LiveCollection, base: Artifact, tmp_path: Path) -> None:
    name = next(name for name in base.manifest.files if name.startswith("encoder/"))
    assert file_sha256(base.path / name) == base.manifest.files[name]
    (base.path / name).write_bytes(b"other")
    with pytest.raises(ArtifactDamaged, match="differs from its hash"):
        compact(state, tmp_path / "out", Silent())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_without_room_is_told_and_nothing_is_left(state: LiveCollection, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(StorageFailed, match="larger than is allowed"):
            compact(state, tmp_path / "out", Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_curves_and_the_bound_of_the_base_stay_also_over_captions_that_came_later(
    base: Artifact, tmp_path: Path
) -> None:
    term = CaptionTerm(slope=8, caption_slope=4, intercept=-2, low=0.2, high=0.8)
    curve = Curve(slope=8, intercept=-2, queries=40)
    curves = Curves(
        text_to_image=curve.model_copy(update={"with_caption": term}), image_to_text=curve, min_confidence=0.4
    )
    write_curves(base.path, curves)
    files = {**base.manifest.files, CONFIDENCE: file_sha256(base.path / CONFIDENCE)}
    write_manifest(base.path, base.manifest.model_copy(update={"files": files}))
    with closing(LiveCollection.of(Collection(Artifact.open(base.path)))) as first:
        changed = first.with_changes([LogEntry(1, "new", live_image("new", 101, captions=["one", "two"]))])
        assert compact(changed, tmp_path / "compacted", Silent()).curves() == curves
