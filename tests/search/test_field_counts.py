"""The numbers beside the values of filters: plain Python over the images is the judge, with changes and without."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_retrieval.artifacts.columns import MAX_VALUES, StoredCodes
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.conditions import read_conditions
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.live.change import LiveImage, LogEntry
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.records import Scalar
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.field_counts import counted_info
from clip_retrieval.search.searchable import SearchableCollection
from tests.live.bases import live_image, write_base

PLACES = ("Oslo", "Rome", "Paris", None)
BASE = [
    live_image(f"i{n}", n, metadata={"place": PLACES[n % 4], "year": 2000 + n % 5, "is_good": n % 3 == 0})
    for n in range(24)
]
CHANGED = {
    "i0": None,
    "i1": live_image("i1", 101, metadata={"place": "Lima", "year": 2003, "is_good": True}),
    "new": live_image("new", 102, metadata={"place": "Oslo", "year": 2001, "is_good": False, "mood": "calm"}),
}

FILTERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "one field": ({"place": "Oslo"}, {"place": lambda _: True, "else": lambda m: m.get("place") == "Oslo"}),
    "two fields": (
        "place in (Oslo, Rome) and year >= 2002",
        {
            "place": lambda m: m["year"] >= 2002,
            "year": lambda m: m.get("place") in {"Oslo", "Rome"},
            "else": lambda m: m.get("place") in {"Oslo", "Rome"} and m["year"] >= 2002,
        },
    ),
    "a choice between two fields is nobody's own": (
        {"or": [{"place": "Oslo"}, {"year": 2003}], "is_good": True},
        {
            "is_good": lambda m: m.get("place") == "Oslo" or m["year"] == 2003,
            "else": lambda m: (m.get("place") == "Oslo" or m["year"] == 2003) and m["is_good"],
        },
    ),
    "what is not so of one field is its own": (
        "not place = Oslo",
        {"place": lambda _: True, "else": lambda m: m.get("place") != "Oslo"},
    ),
}


def counted(fields: Sequence[FieldInfo]) -> dict[str, Any]:
    """What the fields say: values with their counts, or the lowest and the highest number."""
    return {
        one.name: (one.count, one.min, one.max)
        if one.type == "number"
        else (one.count, {value.value: value.count for value in one.values})
        for one in fields
    }


def judged(images: Sequence[Mapping[str, Scalar]], names: Sequence[str], passes: Mapping[str, Any]) -> dict[str, Any]:
    """The same, by looking at every image."""
    found: dict[str, Any] = {}
    for name in names:
        held = [one.get(name) for one in images if passes.get(name, passes["else"])(one)]
        values = [value for value in held if value is not None]
        if name == "year":
            found[name] = (len(values), min(values, default=None), max(values, default=None))
        else:
            found[name] = (len(values), dict(Counter(values)))
    return found


def metadata_of(images: Sequence[LiveImage]) -> list[dict[str, Scalar]]:
    return [{**image.metadata, "split": image.split} for image in images]


@pytest.mark.parametrize("changes", [False, True], ids=["without changes", "with changes"])
@pytest.mark.parametrize("what", FILTERS)
def test_a_field_is_counted_over_what_meets_the_conditions_of_the_others(
    tmp_path: Path, what: str, *, changes: bool
) -> None:
    where, passes = FILTERS[what]
    images = {image.image_id: image for image in BASE}
    with closing(Collection(write_base(tmp_path / "base", BASE))) as base:
        state: SearchableCollection = base
        if changes:
            entries = [LogEntry(number, name, image) for number, (name, image) in enumerate(CHANGED.items(), start=1)]
            state = LiveCollection.of(base).with_changes(entries)
            images = {name: one for name, one in {**images, **CHANGED}.items() if one is not None}
        fields = state.fields_beside(read_conditions(where))
        names = [field.name for field in fields]
        assert names == [field.name for field in state.fields]
        assert counted(fields) == judged(metadata_of(list(images.values())), names, passes)


def test_without_conditions_the_numbers_are_those_of_the_fields(tmp_path: Path) -> None:
    with closing(Collection(write_base(tmp_path / "base", BASE))) as base:
        assert base.fields_beside({}) == base.fields
        state = LiveCollection.of(base).with_changes([LogEntry(1, "i0", None)])
        assert state.fields_beside({}) == state.fields


def test_the_latest_counts_are_kept_until_they_are_to_be_forgotten(tmp_path: Path) -> None:
    with closing(Collection(write_base(tmp_path / "base", BASE))) as base:
        where = read_conditions("place = Oslo")
        first = base.fields_beside(where)
        assert all(a is b for a, b in zip(first, base.fields_beside(read_conditions({"place": "Oslo"})), strict=True))
        base.forget()
        again = base.fields_beside(where)
        assert again == first
        assert again[0] is not first[0]


def test_an_unknown_field_and_a_value_of_another_type_are_refused(tmp_path: Path) -> None:
    with closing(Collection(write_base(tmp_path / "base", BASE))) as base:
        for state in (base, LiveCollection.of(base)):
            with pytest.raises(InvalidQuery, match="there is no field colour"):
                state.fields_beside(read_conditions("colour = red"))
            with pytest.raises(InvalidQuery, match="is not a number"):
                state.fields_beside(read_conditions("year = old"))


@pytest.mark.parametrize("distinct", [3, MAX_VALUES, MAX_VALUES + 1, 400])
def test_the_most_frequent_values_come_first_and_of_equal_ones_the_first(distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    values = [f"{place:03}" for place in range(distinct)]
    codes = rng.integers(-1, distinct, 2 * distinct).astype(np.int32)
    rows = rng.random(len(codes)) < 0.7
    info = FieldInfo(name="title", type="text", count=0, values=[])
    found = counted_info(StoredCodes(info, codes, values), None, rows, np.empty(0, np.bool_))
    counts = Counter(values[code] for code in codes[rows].tolist() if code >= 0)
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MAX_VALUES]
    assert [(one.value, one.count) for one in found.values] == ordered
    assert found.count == sum(counts.values())
