"""States share what was added: while one is searched others are made, and what is masked is let go of."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.columns import FieldType
from clip_retrieval.artifacts.manifest import read_manifest
from clip_retrieval.artifacts.manifest_file import MANIFEST, json_sha256
from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import InvalidChange
from clip_retrieval.live.change import LiveImage, LogEntry
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.live.live_filter import check_metadata
from clip_retrieval.live.live_rows import RENEWED_ROWS
from clip_retrieval.records import Scalar
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from tests.live.bases import DIM, live_image, units, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Two thousand images without captions, searched by codes."""
    images = [live_image(f"base-{n}", n, metadata={"year": n}) for n in range(2000)]
    return write_base(tmp_path_factory.mktemp("live") / "base", images, factory=f"HR{DIM},PQ{DIM}x4fs", depth=128)


@pytest.fixture
def first(base: Artifact) -> Iterator[LiveCollection]:
    with closing(LiveCollection.of(Collection(base))) as opened:
        yield opened


def added(count: int, start: int = 1) -> list[LogEntry]:
    return [LogEntry(start + n, f"new-{n}", live_image(f"new-{n}", 5000 + n)) for n in range(count)]


def ids_found(state: LiveCollection, image: LiveImage, k: int = 10) -> list[str]:
    with closing(Retriever(state.artifact, FakeEncoder())) as retriever:
        outcome = retriever.answer(Query((QueryPart("x"),), k=k), image.vector[None], collection=state)
    return [found.image_id for found, _ in state.images([hit.row for hit in outcome.hits])]


def test_a_state_without_changes_is_searched_as_its_base(first: LiveCollection) -> None:
    assert first.index("images") is first.base.index("images")
    assert first.allowed("images", None) is None
    assert (first.version, first.sequence) == (first.base.version, 0)


def test_the_version_tells_states_apart(first: LiveCollection) -> None:
    state = first.with_changes(added(1, start=7))
    assert (state.version, state.sequence) == ("base+7", 7)
    assert state.with_changes(added(1, start=7)) is state
    assert LiveCollection.of(first.base, sequence=3).version == "base+3"


def test_the_recall_of_many_added_and_removed_rows_is_that_of_an_index(first: LiveCollection) -> None:
    rng = np.random.default_rng(0)
    gone = [LogEntry(n + 1, f"base-{row}", None) for n, row in enumerate(rng.permutation(2000)[:100].tolist())]
    state = first.with_changes(gone).with_changes(added(2500, start=101))
    assert state.needs_freeze
    frozen = state.with_frozen(state.freeze())
    assert not frozen.needs_freeze
    state = frozen.with_changes([LogEntry(5000, "new-7", None), LogEntry(5001, "last", live_image("last", 1))])
    assert (state.count("images"), state.added, state.removed) == (2000 - 100 + 2500, 2500, 100)
    queries = unit_rows(rng.standard_normal((200, DIM)))
    index, live = state.index("images"), state.allowed("images", None)
    found = index.search(queries, 10, allowed=live).rows
    truth = index.exact_search(queries, 10, allowed=live).rows
    shares = [len({*a} & {*b}) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
    assert np.mean(shares) >= 0.99
    assert live is not None
    assert live[found].all()
    assert ids_found(state, live_image("new-8", 5008), 1) == ["new-8"]
    assert "new-7" not in ids_found(state, live_image("new-7", 5007))


def test_indexes_made_meanwhile_fit_the_newest_state(first: LiveCollection) -> None:
    state = first.with_changes(added(1100))
    frozen = state.freeze()
    newer = state.with_changes([LogEntry(5000, "later", live_image("later", 9000))]).with_frozen(frozen)
    assert not newer.needs_freeze
    assert ids_found(newer, live_image("later", 9000), 1) == ["later"]
    assert ids_found(newer, live_image("new-1099", 5000 + 1099), 1) == ["new-1099"]
    other = LiveCollection.of(first.base).with_changes(added(3))
    assert other.with_frozen(frozen) is other, "they are of other rows"
    assert first.with_frozen(frozen) is first, "they are of more rows than the state has"


def test_states_are_right_while_another_thread_makes_new_ones(first: LiveCollection) -> None:
    states = [first.with_changes(added(20))]
    ended = threading.Event()
    wrong: list[str] = []

    def search() -> None:
        with closing(Retriever(first.artifact, FakeEncoder())) as retriever:
            while not ended.is_set():
                for state in (states[0], states[-1]):
                    number = max(0, state.sequence - 20)
                    for name, seed in ((f"turn-{number % 5}", 7000 + number), ("new-3", 5003)):
                        if name.startswith("turn") and not number:
                            continue
                        query = Query((QueryPart("x"),), k=3, where={"split": "train"} if seed % 2 else None)
                        hits = retriever.answer(query, units(1, seed), collection=state).hits
                        found = [image.image_id for image, _ in state.images([hit.row for hit in hits])]
                        if found[0] != name or abs(hits[0].score - 1) > 1e-5:
                            wrong.append(f"{state.version}: {name} gives {found}")

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 150):
        name = f"turn-{number % 5}"
        states.append(states[-1].with_changes([LogEntry(20 + number, name, live_image(name, 7000 + number))]))
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_image_that_is_changed_again_and_again_takes_no_more_memory(first: LiveCollection) -> None:
    state = first.with_changes([LogEntry(1, "kept", live_image("kept", 8000))])
    most = 0
    for number in range(2, 3 * RENEWED_ROWS):
        state = state.with_changes([LogEntry(number, "often", live_image("often", 9000 + number % 50))])
        most = max(most, state.index("images").spec.rows)
    assert most <= 2000 + RENEWED_ROWS + 5
    assert ids_found(state, live_image("kept", 8000), 1) == ["kept"]
    assert (state.added, state.removed) == (2, 0)
    assert state.thumbnail("kept", "small") == b"small kept 8000"


def test_vectors_of_another_shape_change_nothing(first: LiveCollection) -> None:
    wrong = live_image("wrong", 1)
    wrong = LiveImage(**{name: getattr(wrong, name) for name in wrong.__slots__} | {"vector": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"wrong has vectors of shapes \(\(3,\), \(0, 16\)\)"):
        first.with_changes([*added(1), LogEntry(2, "wrong", wrong)])
    state = first.with_changes(added(1))
    assert (state.count("images"), first.count("images")) == (2001, 2000)


def test_an_id_in_another_form_of_unicode_is_found(first: LiveCollection) -> None:
    state = first.with_changes([LogEntry(1, "\u00e4.png", live_image("\u00e4.png", 8000))])
    assert state.find_row("a\u0308.png") == state.find_row("\u00e4.png") == 2000
    assert first.find_row("\u00e4.png") is None, "an older state does not have it"


class TestMetadata:
    def test_a_value_that_does_not_fit_its_field_is_refused(self, first: LiveCollection) -> None:
        new = live_image("a", 8000, metadata={"flag": True, "word": "dog"})
        types = first.with_changes([LogEntry(1, "a", new)]).field_types
        assert types == {"flag": "boolean", "word": "text", "year": "number", "split": "text"}
        with pytest.raises(InvalidChange, match=r"metadata\.year: 'soon' is not a number; the other images"):
            check_metadata(types, {"year": "soon"})
        with pytest.raises(InvalidChange, match=r"metadata\.flag: 'true' is not true or false"):
            check_metadata(types, {"flag": "true"})
        with pytest.raises(InvalidChange, match=r"metadata\.year: True is not a number"):
            check_metadata(types, {"year": True})
        check_metadata(types, {"year": "1999", "flag": None, "word": 7, "split": "of one's own", "new": 1})

    def test_a_value_that_an_image_keeps_need_not_fit(self) -> None:
        types: dict[str, FieldType] = {"flag": "boolean", "year": "number"}
        before: dict[str, Scalar] = {"flag": "maybe", "year": 1}
        check_metadata(types, {"flag": "maybe", "year": 2}, before)
        with pytest.raises(InvalidChange, match=r"metadata\.flag: 'perhaps'"):
            check_metadata(types, {"flag": "perhaps", "year": 1}, before)
        with pytest.raises(InvalidChange, match=r"metadata\.year: True"):
            check_metadata(types, {"flag": "maybe", "year": True}, before)

    def test_the_only_image_that_has_a_new_field_may_give_it_another_type(self, first: LiveCollection) -> None:
        one = live_image("a", 8000, metadata={"size": 3, "year": 4})
        state = first.with_changes([LogEntry(1, "a", one), LogEntry(2, "b", live_image("b", 8001))])
        names = ("a", "b", "base-1", "c")
        assert [state.has_alone(name, "size") for name in names] == [True, False, False, False]
        assert not state.has_alone("a", "year"), "the base has it"
        check_metadata(state.field_types, {"size": "large"}, has_alone=lambda name: state.has_alone("a", name))
        two = live_image("b", 8001, metadata={"size": 4})
        assert not state.with_changes([LogEntry(3, "b", two)]).has_alone("a", "size")

    def test_a_field_that_no_image_has_any_more_is_free(self, first: LiveCollection) -> None:
        state = first.with_changes([LogEntry(1, "a", live_image("a", 8000, metadata={"size": 3}))])
        assert state.field_types["size"] == "number"
        state = state.with_changes([LogEntry(2, "a", live_image("a", 8000, metadata={"size": "large"}))])
        assert state.field_types["size"] == "text"
        assert "size" not in state.with_changes([LogEntry(3, "a", None)]).field_types


def test_a_manifest_of_an_earlier_release_says_nothing_of_changes(base: Artifact, tmp_path: Path) -> None:
    body = base.manifest.model_dump(mode="json")
    del body["parent"], body["sequence"]
    (tmp_path / MANIFEST).write_text(json.dumps({"sha256": json_sha256(body), "manifest": body}), encoding="utf-8")
    manifest = read_manifest(tmp_path)
    assert (manifest.parent, manifest.sequence) == (None, None)
