"""What must change so that a collection equals a source."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import check
from clip_retrieval.build.plan import ImageState, Part, Plan, plan, states_of_records, states_of_source
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent

A = ImageState("aa", ("a red square", "a square"), {"shade": "soft", "year": 2020}, None, "a.png", (None, None))
STATES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        ImageState,
        st.sampled_from(["1", "2"]),
        st.tuples(st.sampled_from(["x", "y"])),
        st.just({}),
        st.sampled_from([None, "train"]),
        st.sampled_from(["a.png", "b.png"]),
    ),
)


def test_each_image_is_added_changed_removed_or_unchanged() -> None:
    found = plan({"new": A, "same": A, "other": A}, {"gone": A, "other": replace(A, content_hash="bb"), "same": A})
    assert found == Plan(added=("new",), changed={"other": ("image",)}, removed=("gone",), unchanged=1)
    assert str(found) == "1 added, 1 changed, 1 removed, 1 unchanged"
    assert found.held == 3
    assert not found.is_empty


@pytest.mark.parametrize(
    ("held", "parts"),
    [
        (replace(A, captions=("a square", "a red square")), ("captions",)),
        (replace(A, metadata={"shade": "soft"}), ("metadata",)),
        (replace(A, metadata={"shade": "soft", "year": "2020"}), ("metadata",)),
        (replace(A, content_hash="bb", captions=()), ("image", "captions")),
        (replace(A, metadata={"year": 2020, "shade": "soft", "note": None}), ()),
        (replace(A, split="val"), ()),
        (replace(A, image_path="zebra.png"), ("path",)),
        (replace(A, languages=("en", None)), ("captions",)),
        (replace(A, languages=None), ()),
    ],
    ids=[
        *("the order of captions", "a field less", "a type", "two parts", "a field without a value", "a drawn split"),
        *("a path", "a language", "languages that a service does not know"),
    ],
)
def test_a_change_says_what_differs(held: ImageState, parts: tuple[Part, ...]) -> None:
    assert plan({"a": A}, {"a": held}).changed == ({"a": parts} if parts else {})


def test_a_split_that_the_source_gives_must_be_the_same() -> None:
    given_split = replace(A, split="test")
    assert plan({"a": given_split}, {"a": replace(A, split="val")}).changed == {"a": ("split",)}
    assert plan({"a": given_split}, {"a": given_split}).is_empty


def test_a_path_is_the_same_in_every_form_of_unicode() -> None:
    assert plan({"a": replace(A, image_path="cafe\u0301")}, {"a": replace(A, image_path="caf\u00e9")}).is_empty


def test_true_is_not_one() -> None:
    assert plan({"a": replace(A, metadata={"x": True})}, {"a": replace(A, metadata={"x": 1})}).changed


def test_an_image_that_cannot_be_read_now_stays() -> None:
    found = plan({"a": A}, {"a": A, "half-written": A, "gone": A}, unreadable={"half-written", "never held"})
    assert (found.removed, found.unreadable, found.unchanged) == (("gone",), ("half-written",), 1)
    assert str(found).endswith("1 left as they are")


@pytest.mark.parametrize(("removed", "held", "most"), [(0, 0, False), (1, 2, False), (2, 3, True), (3, 3, True)])
def test_more_than_half_is_most(removed: int, held: int, most: bool) -> None:
    states = {str(number): A for number in range(held)}
    assert plan(dict.fromkeys(list(states)[removed:], A), states).removes_most is most


@given(STATES, STATES)
def test_a_plan_leads_to_the_source_and_then_there_is_nothing_to_do(
    source: dict[str, ImageState], held: dict[str, ImageState]
) -> None:
    found = plan(source, held)
    made = {name: state for name, state in held.items() if name not in found.removed}
    for name in (*found.added, *found.changed):
        made[name] = source[name]
    assert plan(source, made).is_empty
    assert made.keys() == source.keys()
    assert found.held == len(held)


def test_the_states_of_an_artifact_are_those_of_its_source(fake_artifact: Artifact, collection: Path) -> None:
    report = check(collection, Limits(), Silent())
    with fake_artifact.store() as store:
        held = states_of_records(store.images(), store.captions())
    wanted = states_of_source(report.kept)
    assert plan(wanted, held) == Plan((), {}, (), 24)
    assert list(wanted) == list(held)
