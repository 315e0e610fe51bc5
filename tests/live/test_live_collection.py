"""A live collection answers as its images say: a dictionary and brute force over it are the judge."""

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.columns import open_columns, write_columns
from clip_retrieval.contract.queries import Sort, search_request
from clip_retrieval.contract.queries import text as part
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import InvalidChange, InvalidQuery
from clip_retrieval.live.change import LiveImage, LogEntry
from clip_retrieval.live.compacting import compact_log
from clip_retrieval.live.etag import etag_of
from clip_retrieval.live.lineage import Held
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.live_filter import check_metadata
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from clip_retrieval.progress import Silent
from clip_retrieval.records import MODALITIES, Modality
from clip_retrieval.search.browse import first_rows
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.filters import RowFilter
from clip_retrieval.search.query import Query, QueryPart, StoredImage
from clip_retrieval.search.ranking import NEAR_DUPLICATE_COSINE
from clip_retrieval.search.retriever import Retriever
from tests.live.bases import DIM, ArtifactElsewhere, live_image, units, write_base

BASE_IMAGES = 30
COMPACTIONS = 2
"""Most compactions of one example: each takes as long as many other steps."""
IDS = [f"base-{number}" for number in range(0, BASE_IMAGES, 4)] + ["new-1", "new-2", "Ä-new", "zzz"]
WORDS = ("dog", "Dog house", "cat", "10")
WHERES: tuple[Mapping[str, Any], ...] = (
    {"year": {"gte": 2}},
    {"year": None},
    {"word": "dog", "year": {"lt": 4}},
    {"word": {"contains": "DOG"}},
    {"word": {"in": ["cat", "10"]}},
    {"flag": True},
    {"split": "test"},
    {"extra": 1},
    {"extra": {"lte": 2}},
    {"extra": None},
    {"extra": {"contains": "o"}},
    {"or": [{"year": {"gte": 3}}, {"extra": None, "word": "dog"}]},
    {"not": {"extra": 1}},
    {"not": [{"word": "dog"}, {"flag": True, "extra": None}]},
)


@cache
def base(factory: str) -> Artifact:
    """Thirty images, some of equal pixels, with captions and typed fields; written once."""
    images = [
        live_image(
            f"base-{number}",
            number,
            captions=[f"caption {number}.{place}" for place in range(number % 3)],
            metadata={"year": number % 6, "word": WORDS[number % 4], "flag": number % 2 == 0},
            split="test" if number % 5 == 0 else "train",
            pixels=number % 25,
        )
        for number in range(BASE_IMAGES)
    ]
    return write_base(Path(tempfile.mkdtemp(prefix="bento-clip-live-")) / factory, images, factory=factory)


metadata = st.fixed_dictionaries(
    {},
    optional={
        "year": st.integers(0, 5) | st.just("3"),
        "word": st.sampled_from(WORDS) | st.integers(0, 1),
        "flag": st.booleans() | st.none(),
        "extra": st.integers(0, 3) | st.booleans() | st.sampled_from(["o", "no", "2"]),
        "split": st.just("hidden"),
    },
)
puts = st.builds(
    live_image,
    st.sampled_from(IDS),
    st.integers(100, 10**6),
    captions=st.lists(st.sampled_from(["a caption", "another caption"]), max_size=2),
    metadata=metadata,
    split=st.sampled_from(["train", "test"]),
    pixels=st.integers(0, 40) | st.none(),
)


class Model:
    """The images of a state in the order of their rows."""

    def __init__(self, images: Mapping[str, LiveImage]) -> None:
        self.images = dict(images)

    def changed(self, entries: Sequence[LogEntry]) -> "Model":
        images = dict(self.images)
        for entry in entries:
            images.pop(entry.image_id, None)  # a changed image gets a new row, the last one
            if entry.image is not None:
                images[entry.image_id] = entry.image
        return Model(images)

    def rows(self, target: Modality) -> list[tuple[str, LiveImage, Vectors]]:
        """What identifies a row, its image and its vector."""
        if target == "images":
            return [(image.image_id, image, image.vector) for image in self.images.values()]
        return [
            (caption.caption_id, image, vector)
            for image in self.images.values()
            for caption, vector in zip(image.captions, image.caption_vectors, strict=True)
        ]

    def filter(self) -> RowFilter:
        """That of a fresh build of these images."""
        with tempfile.TemporaryDirectory() as folder:
            facts = [(image.split, image.metadata) for image in self.images.values()]
            write_columns(Path(folder) / "columns", facts)
            return RowFilter(open_columns(Path(folder) / "columns", len(facts)), np.empty(0, np.int32))

    def found(self, vector: Vectors, target: Modality, where: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
        """All rows in order, each as what identifies it and its content hash. Raises InvalidQuery."""
        rows = self.rows(target)
        if where:
            mask = self.filter().mask(where, "images")
            passing = {image_id for image_id, passes in zip(self.images, mask.tolist(), strict=True) if passes}
            rows = [row for row in rows if row[1].image_id in passing]
        cosines = np.array([one @ vector for *_, one in rows], np.float64).round(6)
        order = np.argsort(-cosines, kind="stable").tolist()
        return [(rows[place][0], rows[place][1].content_hash) for place in order]

    def folded(self, ranked: Sequence[tuple[str, str]], target: Modality) -> list[str]:
        """The ranked rows without near-duplicates of a better one."""
        vectors = {name: vector for name, _, vector in self.rows(target)}
        kept: list[tuple[str, str]] = []
        for name, content in ranked:
            near = any(
                vectors[name] @ vectors[other] >= NEAR_DUPLICATE_COSINE or (target == "images" and content == same)
                for other, same in kept
            )
            if not near:
                kept.append((name, content))
        return [name for name, _ in kept]


class LiveMachine(RuleBasedStateMachine):
    factory = "Flat"
    compactions = COMPACTIONS

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bento-clip-live-")
        self.folders = 1
        self.log = self.open_log()
        self.collection = self.open_base()
        self.opened = [self.collection]
        self.retriever = Retriever(base(self.factory), FakeEncoder())
        self.checked: LiveCollection | None = None
        first = LiveCollection.of(self.collection)
        images = {f"base-{number}": first.get(f"base-{number}") for number in range(BASE_IMAGES)}
        self.states = [(first, Model({name: image for name, image in images.items() if image is not None}))]
        self.whole_from = 0
        """The first state from which every later one has each change, and no removal."""
        self.in_base = dict(self.model.images)

    def teardown(self) -> None:
        for collection in self.opened:
            collection.close()
        self.retriever.close()
        self.log.close()
        self.folder.cleanup()

    def open_base(self) -> Collection:
        return Collection(base(self.factory))

    def open_log(self) -> ChangeLog:
        path = Path(self.folder.name) / f"changes-{self.folders}" / LOG_FILE
        return ChangeLog.open(path, fingerprint=FakeEncoder().info.fingerprint, dim=DIM)

    @property
    def state(self) -> LiveCollection:
        return self.states[-1][0]

    @property
    def model(self) -> Model:
        return self.states[-1][1]

    def change(self, changes: Sequence[tuple[str, LiveImage | None]]) -> None:
        entries = []
        held = Held.by(self.collection.manifest)
        with self.log.transaction() as transaction:
            assert transaction.following(held, self.state.sequence) == []
            for image_id, image in changes:
                sequence = transaction.remove(image_id) if image is None else transaction.put(image)
                entries.append(LogEntry(sequence, image_id, image))
        # The log gives the latest entry of each image alone.
        entries = sorted({entry.image_id: entry for entry in entries}.values(), key=lambda entry: entry.sequence)
        state = self.state.with_changes(self.log.following(held, self.state.sequence))
        is_whole = len(entries) == len(changes) and all(image is not None for _, image in changes)
        if not (is_whole and state.shares_rows_with(self.state)):
            self.whole_from = len(self.states)
        self.states.append((state, self.model.changed(entries)))

    @rule(image=puts)
    def put(self, image: LiveImage) -> None:
        try:
            has_alone = partial(self.state.has_alone, image.image_id)
            check_metadata(self.state.field_types, image.metadata, has_alone=has_alone)
        except InvalidChange:
            return
        self.change([(image.image_id, image)])

    @rule(image_id=st.sampled_from(IDS))
    def remove(self, image_id: str) -> None:
        if self.state.image(image_id) is not None:
            self.change([(image_id, None)])

    @rule(images=st.lists(puts, min_size=2, max_size=6), removed=st.sampled_from(IDS))
    def change_several(self, images: list[LiveImage], removed: str) -> None:
        plain = [live_image(image.image_id, image.width, metadata={"year": 1}) for image in images]
        self.change([*((image.image_id, image) for image in plain), (removed, None)])

    @rule()
    def freeze(self) -> None:
        self.states[-1] = (self.state.with_frozen(self.state.freeze(more_than=0)), self.model)

    @rule(number=st.integers(0, 50))
    def look_at_an_older_state(self, number: int) -> None:
        state, model = self.states[number % len(self.states)]
        self.check(state, model, units(1, number)[0])

    @rule(number=st.integers(0, 50))
    def go_back_to_an_older_state(self, number: int) -> None:
        state, model = self.states[self.whole_from + number % (len(self.states) - self.whole_from)]
        again = self.state.as_of(state.sequence)
        assert again.version == state.version
        self.check(again, model, units(1, number)[0])
        self.check_conditions(again, model)

    @rule(seed=st.integers(0, 1000))
    def open_again_from_the_log(self, seed: int) -> None:
        self.log.close()
        self.log = self.open_log()
        entries = self.log.following(Held.by(self.collection.manifest), self.collection.sequence)
        again = LiveCollection.of(self.collection).with_changes(entries)
        assert again.version == self.state.version
        assert again.field_types == self.state.field_types
        self.check(again, self.model, units(1, seed)[0])

    # A field that a compaction made one of the base stays one, with its type, also where no image is left that has it;
    # test_compaction.py has that. The model is a fresh build, which does not know it.
    @precondition(lambda self: not any("extra" in image.metadata for image in self.model.images.values()))
    @precondition(lambda self: self.state.sequence > self.collection.sequence and len(self.opened) <= self.compactions)
    @rule(seed=st.integers(0, 1000), elsewhere=st.booleans())
    def compact(self, seed: int, elsewhere: bool) -> None:
        """The artifact with the changes takes over; the log drops them, or another folder has the changes after it."""
        before = self.state
        made = compact_log(
            self.collection.artifact,
            self.log,
            Path(self.folder.name) / "builds",
            Silent(),
            save=lambda artifact: str(artifact.path),
        )
        assert made is not None
        assert (made.images, made.sequence) == (len(self.model.images), before.sequence)
        artifact = Artifact.open(Path(made.tag))
        assert (artifact.manifest.parent, artifact.manifest.sequence) == (
            self.collection.artifact.manifest.version,
            before.sequence,
        )
        with self.log.transaction() as transaction:
            transaction.compacted(made.sequence, made.version)
        assert self.log.after(0) == []
        if elsewhere:
            self.log.close()
            self.folders += 1
            self.log = self.open_log()
        self.collection = Collection(artifact)
        self.opened.append(self.collection)
        self.check(before, self.model, units(1, seed)[0])  # who still has the state before is not disturbed
        self.in_base = dict(self.model.images)
        self.states = [(LiveCollection.of(self.collection), self.model)]
        self.whole_from = 0

    @rule(image=puts)
    def extend_an_older_state(self, image: LiveImage) -> None:
        """Nobody should, but then it is as right."""
        state, model = self.states[len(self.states) // 2]
        entries = [LogEntry(state.sequence + 1, "forked", live_image("forked", image.width))]
        self.check(state.with_changes(entries), model.changed(entries), image.vector)

    @rule(
        vector=st.integers(0, 1000).map(lambda seed: units(1, seed)[0])
        | st.integers(0, 29).map(lambda n: units(1, n)[0]),
        kind=st.sampled_from(MODALITIES),
        k=st.integers(1, 60),
        offset=st.integers(0, 40),
        dedupe=st.booleans(),
        where=st.none() | st.sampled_from(WHERES),
    )
    def search(
        self, vector: Vectors, kind: Modality, k: int, offset: int, dedupe: bool, where: Mapping[str, Any] | None
    ) -> None:
        conditions = None if where is None else search_request([part("x")], where=where).where
        query = Query((QueryPart("x"),), kind, k, offset, dedupe=dedupe, where=conditions)
        try:
            ranked = self.model.found(vector, kind, conditions)
        except InvalidQuery as error:
            with pytest.raises(InvalidQuery, match=str(error).split(";")[0].split("(")[0].replace("?", ".")):
                self.retriever.answer(query, vector[None], collection=self.state)
            return
        expected = self.model.folded(ranked, kind) if dedupe else [name for name, _ in ranked]
        outcome = self.retriever.answer(query, vector[None], collection=self.state)
        rows = [hit.row for hit in outcome.hits]
        if kind == "images":
            found = [image.image_id for image, _ in self.state.images(rows)]
        else:
            found = [caption.caption_id for caption, _ in self.state.captions(rows)]
        assert found == expected[offset : offset + k]
        assert (outcome.next_offset is not None) == (len(expected) > offset + k)

    @precondition(lambda self: self.model.images)
    @rule(place=st.integers(0, 100))
    def find_similar_by_id(self, place: int) -> None:
        image_id = list(self.model.images)[place % len(self.model.images)]
        vector = self.state.stored_vector(image_id)
        query = Query((QueryPart(StoredImage(image_id)),), k=5)
        hits = self.retriever.run(query, collection=self.state).hits
        found = [image.image_id for image, _ in self.state.images([hit.row for hit in hits])]
        assert found == [name for name, _ in self.model.found(vector, "images") if name != image_id][:5]

    @invariant()
    def the_newest_state_is_right(self) -> None:
        if hasattr(self, "states") and self.checked is not self.state:
            self.check(self.state, self.model, units(1, self.state.sequence)[0])
            self.check_conditions(self.state, self.model)
            self.checked = self.state

    def check_orders(self, state: LiveCollection, model: Model, fresh: RowFilter) -> None:
        """The order of a field, and that of the ids, are those of a fresh build of the images."""
        names = list(model.images)
        for field in [None, *(info.name for info in fresh.fields)]:
            for descending in (False, True):
                if field is None:
                    expected = sorted(names, reverse=descending)
                else:
                    rows = first_rows(fresh.keys(field), None, len(names), descending=descending)
                    expected = [names[row] for row in rows.tolist()]
                order = Sort(field=field, descending=descending)
                found = state.images(state.in_order(order, None, len(names) + 1).tolist())
                assert [image.image_id for image, _ in found] == expected, (field, descending)
                found = state.images(state.in_order(order, {"split": "test"}, 3).tolist())
                passing = [name for name in expected if model.images[name].split == "test"]
                assert [image.image_id for image, _ in found] == passing[:3], (field, descending)

    def check_conditions(self, state: LiveCollection, model: Model) -> None:
        """Fields and conditions are those of a fresh build of the images."""
        fresh = model.filter()
        assert state.fields == fresh.fields
        self.check_orders(state, model, fresh)
        names = np.array(list(model.images), object)
        for given in WHERES:
            where = search_request([part("x")], where=given).where
            assert where is not None
            try:
                passing = names[fresh.mask(where, "images")].tolist()
            except InvalidQuery:
                continue
            for target in MODALITIES:
                mask = state.allowed(target, where)
                assert mask is not None
                assert len(mask) == state.index(target).spec.rows
                rows = np.flatnonzero(mask).tolist()
                if target == "images":
                    assert [image.image_id for image, _ in state.images(rows)] == passing
                else:
                    captions = {caption.caption_id for name in passing for caption in model.images[name].captions}
                    assert {caption.caption_id for caption, _ in state.captions(rows)} == captions

    def check(self, state: LiveCollection, model: Model, vector: Vectors) -> None:
        """All that a state says of its images."""
        assert state.count("images") == len(model.images)
        assert state.count("captions") == len(model.rows("captions"))
        kept = sum(model.images.get(image_id) is image for image_id, image in self.in_base.items())
        assert (state.added, state.removed) == (len(model.images) - kept, len(self.in_base) - kept)
        ids: list[str] = []
        while page := state.page_of_ids(ids[-1] if ids else None, 7):
            ids += page
        assert ids == sorted(model.images)
        for image_id in (*IDS, "forked", "base-1", "Ä-new"):
            image, got = model.images.get(image_id), state.get(image_id)
            if image is None:
                assert got is None
                assert (state.image(image_id), state.etag(image_id)) == (None, None)
                assert state.thumbnail(image_id, "small") is None
                continue
            assert got is not None
            assert state.etag(image_id) == etag_of(image, image.captions) == etag_of(got, got.captions)
            assert np.array_equal(got.vector, image.vector)
            assert np.array_equal(got.caption_vectors, image.caption_vectors)
            if state is self.state:
                assert got.thumbnail == image.thumbnail
                assert image.thumbnail is not None
                assert state.thumbnail(image_id, "small") == image.thumbnail.small
                assert state.thumbnail(image_id, "large") == (image.thumbnail.large or image.thumbnail.small)
        sample = [image.image_id for image, _ in state.sample(9)]
        live = list(model.images)
        assert sample == ([live[len(live) * n // 9] for n in range(9)] if len(live) > 9 else live)
        numbers = state.content_numbers("images")
        assert numbers is not None
        number_of = {name: int(numbers[state.row_of(name)]) for name in model.images}
        hashes = {name: image.content_hash for name, image in model.images.items()}
        assert {(number_of[a] == number_of[b]) == (hashes[a] == hashes[b]) for a in hashes for b in hashes} <= {True}
        outcome = self.retriever.answer(Query((QueryPart("x"),), k=4), vector[None], collection=state)
        fragments = state.fragments("images", [hit.row for hit in outcome.hits])
        assert [name for name, _ in model.found(vector, "images")][:4] == [
            fragment.split('"')[3] for fragment in fragments
        ]


class ApproximateMachine(LiveMachine):
    """The base is searched by codes; among so few rows the vectors order all of them."""

    factory = f"HR{DIM},PQ{DIM}x4fs"


class ElsewhereMachine(LiveMachine):
    """An engine elsewhere finds rows of the base, more of them than conditions let through."""

    compactions = 0  # the engine is a fake one, and a compaction fills a real one

    def open_base(self) -> Collection:
        artifact = base(self.factory)
        return Collection(ArtifactElsewhere(artifact.path, artifact.manifest))


TestLive = LiveMachine.TestCase
TestLive.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestLiveApproximate = pytest.mark.slow(ApproximateMachine.TestCase)
TestLiveApproximate.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
TestLiveElsewhere = pytest.mark.slow(ElsewhereMachine.TestCase)
TestLiveElsewhere.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
