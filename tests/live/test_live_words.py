"""Words of a collection that changes: what is added is found by its words, what is removed is not, and a compaction
changes no order and no score."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.word_search import find, wanted_words
from clip_retrieval.artifacts.words import FEW
from clip_retrieval.contract.queries import text
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.compaction import compact
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.progress import Silent
from clip_retrieval.records import MODALITIES, MODES, Modality
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.retriever import Retriever
from tests.artifacts.test_words import made_of, without_words
from tests.live.bases import ArtifactElsewhere, live_image, write_base

SENTENCES = ("a red dog in the snow", "a cat", "the dog and the cat", "snow on a red roof", "nothing")


@pytest.fixture
def base(tmp_path: Path) -> Artifact:
    images = [
        live_image(f"base-{n}", n, captions=[SENTENCES[n % 5]] * (n % 3), metadata={"place": f"p{n % 4}", "year": n})
        for n in range(40)
    ]
    return write_base(tmp_path / "base", images)


@pytest.fixture
def first(base: Artifact) -> Iterator[LiveCollection]:
    with closing(LiveCollection.of(Collection(base))) as opened:
        yield opened


@pytest.fixture
def state(first: LiveCollection) -> LiveCollection:
    return first.with_changes(
        [
            LogEntry(1, "base-4", None),
            LogEntry(2, "base-10", live_image("base-10", 110, captions=["a green parrot"], metadata={"place": "Oslo"})),
            LogEntry(3, "new-1", live_image("new-1", 101, captions=["a parrot", "a dog"], metadata={"by": "Ana"})),
            LogEntry(4, "gone", live_image("gone", 102, captions=["a unicorn"])),
        ]
    ).with_changes(
        [
            LogEntry(5, "gone", None),
            LogEntry(6, "new-1", live_image("new-1", 103, captions=["a blue parrot"], metadata={"by": "Bob 7"})),
            LogEntry(7, "DSC_0042", live_image("DSC_0042", 104, metadata={"year": 2024, "good": True})),
        ]
    )


def found(collection: LiveCollection, words: str, target: Modality = "images") -> list[str]:
    """The ids of what the words find, best first."""
    assert collection.words is not None
    rows = find(collection.words, target, wanted_words([(words, 1.0)])).rows.tolist()
    if target == "images":
        return [image.image_id for image, _ in collection.images(rows)]
    return [caption.caption_id for caption, _ in collection.captions(rows)]


def test_added_and_changed_images_are_found_by_their_words(state: LiveCollection) -> None:
    assert sorted(found(state, "parrot")) == ["base-10", "new-1"]
    assert found(state, "oslo") == ["base-10"]
    assert found(state, "0042") == ["DSC_0042"], "by its name"
    assert found(state, "bob") == ["new-1"], "by a new column of text"
    assert found(state, "2024") == [], "numbers are no text"
    assert found(state, "parrot", "captions") == ["base-10#110.0", "new-1#103.0"], "equal ones in row order"


def test_what_was_removed_or_replaced_is_not_found(first: LiveCollection, state: LiveCollection) -> None:
    assert found(state, "unicorn") == found(state, "unicorn", "captions") == []
    assert found(state, "ana") == []
    assert "base-4" in found(first, "nothing")
    assert "base-4" not in found(state, "nothing")
    assert found(first, "10") == ["base-10"], "the state before is as it was"
    assert found(first, "parrot") == []


def test_an_earlier_state_has_the_words_of_its_time(state: LiveCollection) -> None:
    later = state.with_changes([LogEntry(8, "late", live_image("late", 300, captions=["a parrot again"]))])
    assert "late" in found(later, "parrot")
    assert "late" not in found(state, "parrot")
    assert found(later.as_of(7), "parrot") == found(state, "parrot")


def test_a_compaction_changes_neither_order_nor_score(state: LiveCollection, tmp_path: Path) -> None:
    artifact = compact(state, tmp_path / "out", Silent())
    with closing(LiveCollection.of(Collection(artifact))) as again:
        assert again.words is not None
        assert state.words is not None
        for target in MODALITIES:
            for words in ("dog", "red snow", "parrot", "a the cat roof", "p1 oslo", "0042 bob", "base png"):
                assert found(again, words, target) == found(state, words, target), words
                wanted = wanted_words([(words, 1.0)])
                before, after = (find(one.words, target, wanted) for one in (state, again) if one.words)
                assert np.array_equal(before.scores, after.scores)
                assert np.array_equal(before.shares, after.shares)


def test_chosen_columns_are_those_of_added_images_too(base: Artifact, tmp_path: Path) -> None:
    chosen = made_of(without_words(base), tmp_path / "chosen", ["year"])
    with closing(LiveCollection.of(Collection(chosen))) as opened:
        state = opened.with_changes(
            [LogEntry(1, "x", live_image("x", 200, metadata={"year": 1977, "place": "Oslo", "by": "Ana"}))]
        )
        assert (found(state, "1977"), found(state, "oslo"), found(state, "ana")) == (["x"], [], [])
        made = compact(state, tmp_path / "out", Silent())
        assert made.word_columns() == ("year",)
        with closing(LiveCollection.of(Collection(made))) as again:
            assert (found(again, "1977"), found(again, "oslo")) == (["x"], [])


def test_a_base_of_an_earlier_release_gets_words_by_a_compaction(base: Artifact, tmp_path: Path) -> None:
    with closing(LiveCollection.of(Collection(without_words(base)))) as opened:
        state = opened.with_changes([LogEntry(1, "new", live_image("new", 200, captions=["a parrot"]))])
        assert state.words is None
        with closing(LiveCollection.of(Collection(compact(state, tmp_path / "out", Silent())))) as again:
            assert found(again, "parrot") == ["new"]


def test_a_word_that_many_have_stays_right_when_many_are_removed(tmp_path: Path) -> None:
    images = [live_image(f"i{n}", n, captions=["common"]) for n in range(FEW + 60)]
    with closing(LiveCollection.of(Collection(write_base(tmp_path / "base", images)))) as opened:
        state = opened.with_changes([LogEntry(n + 1, f"i{n}", None) for n in range(FEW + 40)])
        assert found(state, "common") == [f"i{n}" for n in range(FEW + 40, FEW + 60)]


def test_words_stay_in_the_artifact_where_its_index_is_elsewhere(base: Artifact) -> None:
    entries = [LogEntry(1, "new", live_image("new", 200, captions=["a parrot"])), LogEntry(2, "base-4", None)]
    answers = []
    for artifact in (base, ArtifactElsewhere(base.path, base.manifest)):
        with closing(Retriever(artifact, FakeEncoder())) as retriever:
            retriever.exchange(LiveCollection.of(Collection(artifact)).with_changes(entries))
            answers.append(
                [
                    [
                        (hit.image.image_id, hit.found_by)
                        for hit in retriever.search([text(words)], mode=mode, k=9).images
                    ]
                    for words in ("parrot", "red dog", "nothing")
                    for mode in MODES
                ]
            )
    assert answers[0] == answers[1]
    assert answers[0][1] == [("new", "words")]


def test_pages_of_a_search_by_words_come_from_one_state(state: LiveCollection) -> None:
    with closing(Retriever(state.artifact, FakeEncoder())) as retriever:
        retriever.exchange(state)
        whole = [hit.image.image_id for hit in retriever.search([text("parrot dog")], mode="words", k=50).images]
        pages = [retriever.search([text("parrot dog")], mode="words", k=4, offset=at).images for at in range(0, 40, 4)]
        assert [hit.image.image_id for page in pages for hit in page] == whole
        both = retriever.search([text("parrot")], mode="both", k=2).images
        assert sorted(hit.image.image_id for hit in both) == ["base-10", "new-1"]
