"""A filter lets through what its conditions say: plain Python over the records is the judge of the masks."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.columns import MAX_VALUES, open_columns, write_columns
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.conditions import Condition
from clip_retrieval.contract.queries import SearchRequest, search_request, text
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Scalar, Split
from clip_retrieval.search.filters import RowFilter, canonical

WORDS = ("Dog", "dog park", "Straße", "cat", "", "DOGMA", "ß", "10")
numbers = st.integers(-5, 5) | st.floats(-5, 5, allow_nan=False)
columns = {
    "word": st.none() | st.sampled_from(WORDS),
    "number": st.none() | numbers,
    "flag": st.none() | st.booleans(),
    "mixed": st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(WORDS),
}
rows = st.lists(st.fixed_dictionaries({}, optional=columns), min_size=1, max_size=12)


def where(**conditions: Any) -> Mapping[str, Any]:
    """Conditions as a request brings them."""
    request = search_request([text("red")], where=conditions)
    assert request.where is not None
    return request.where


def filter_of(images: Sequence[tuple[Split, Mapping[str, Scalar]]], caption_rows: Sequence[int] = ()) -> RowFilter:
    """The filter of these images, as a server opens it; ``caption_rows`` has the image row of each caption."""
    with tempfile.TemporaryDirectory() as folder:  # a mapped file stays readable after its name is gone
        write_columns(Path(folder) / "columns", images)
        columns = open_columns(Path(folder) / "columns", len(images))
    return RowFilter(columns, np.array(caption_rows, dtype=np.int32))


def info_of(values: Sequence[Scalar]) -> FieldInfo:
    """The field of a column with these values."""
    return filter_of([("train", {"name": value}) for value in values]).fields[0]


def found(data: list[dict[str, Scalar]], **conditions: Any) -> list[int]:
    filters = filter_of([("train", row) for row in data])
    return np.flatnonzero(filters.mask(where(**conditions), "images")).tolist()


def plain(value: Scalar) -> str:
    """A value of a text column: text, or the JSON of anything else."""
    return value if isinstance(value, str) else json.dumps(value)


@settings(max_examples=60, deadline=None)
@given(rows, numbers, st.sampled_from(["gt", "gte", "lt", "lte"]))
def test_numbers_are_compared_by_size(data: list[dict[str, Scalar]], bound: float, side: str) -> None:
    data.append({"number": 1})
    right = {
        "gt": lambda v: v > bound,
        "gte": lambda v: v >= bound,
        "lt": lambda v: v < bound,
        "lte": lambda v: v <= bound,
    }
    expected = [i for i, row in enumerate(data) if (v := row.get("number")) is not None and right[side](v)]
    assert found(data, number={side: bound}) == expected


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(WORDS), st.sampled_from(["gt", "gte", "lt", "lte"]))
def test_text_is_compared_by_code_points(data: list[dict[str, Scalar]], bound: str, side: str) -> None:
    data.append({"word": "cat"})
    right = {
        "gt": lambda v: v > bound,
        "gte": lambda v: v >= bound,
        "lt": lambda v: v < bound,
        "lte": lambda v: v <= bound,
    }
    expected = [i for i, row in enumerate(data) if (v := row.get("word")) is not None and right[side](v)]
    assert found(data, word={side: bound}) == expected


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from([word for word in WORDS if word] + ["og", "STRASSE"]))
def test_text_contains_text_whatever_the_case(data: list[dict[str, Scalar]], part: str) -> None:
    data.append({"word": "cat"})
    folded = part.casefold()
    expected = [i for i, row in enumerate(data) if folded in str(row.get("word") or "").casefold()]
    assert found(data, word={"contains": part}) == expected


@settings(max_examples=60, deadline=None)
@given(rows, st.lists(st.none() | st.sampled_from(WORDS), min_size=1, max_size=4))
def test_in_is_equal_to_any_and_null_is_missing(data: list[dict[str, Scalar]], choices: list[str | None]) -> None:
    data.append({"word": "cat"})
    expected = [i for i, row in enumerate(data) if row.get("word") in choices]
    assert found(data, word={"in": choices}) == expected
    for choice in choices:
        assert found(data, word=choice) == [i for i, row in enumerate(data) if row.get("word") == choice]


@settings(max_examples=60, deadline=None)
@given(rows, st.booleans() | st.none())
def test_truth_values_are_equal_to_themselves(data: list[dict[str, Scalar]], value: bool | None) -> None:
    data.append({"flag": True})
    assert found(data, flag=value) == [i for i, row in enumerate(data) if row.get("flag") is value]


@settings(max_examples=60, deadline=None)
@given(rows, columns["mixed"])
def test_mixed_values_are_compared_as_json_writes_them(data: list[dict[str, Scalar]], value: Scalar) -> None:
    data += [{"mixed": "text"}, {"mixed": True}]
    expected = [
        i
        for i, row in enumerate(data)
        if (value is None and row.get("mixed") is None)
        or (value is not None and row.get("mixed") is not None and plain(row["mixed"]) == plain(value))
    ]
    assert found(data, mixed=value) == expected


@settings(max_examples=40, deadline=None)
@given(rows, numbers, st.sampled_from(WORDS))
def test_all_fields_and_all_operators_of_a_field_must_hold(
    data: list[dict[str, Scalar]], bound: float, word: str
) -> None:
    data.append({"number": 1, "word": "cat"})
    both = found(data, number={"gt": bound, "lt": bound + 2}, word=word)
    expected = (
        set(found(data, number={"gt": bound}))
        & set(found(data, number={"lt": bound + 2}))
        & set(found(data, word=word))
    )
    assert both == sorted(expected)


def test_captions_are_let_through_with_their_image() -> None:
    filters = filter_of([("train", {"a": "x"}), ("test", {"a": "y"})], [1, 0, 0, 1])
    assert filters.mask(where(a="x"), "captions").tolist() == [False, True, True, False]
    assert filters.mask(where(split="test"), "captions").tolist() == [True, False, False, True]


def test_a_mask_is_kept_and_cannot_be_changed() -> None:
    filters = filter_of([("train", {"a": "x"})])
    mask = filters.mask(where(a="x", split="train"), "images")
    assert filters.mask(where(split="train", a="x"), "images") is mask, "whatever the order of the conditions"
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {"a": "null"}),
        ({"a": "x"}, {"a": {"in": ["x", "y"]}}),
        ({"a": {"gt": 1}}, {"a": {"gte": 1}}),
        ({"a": {"in": [None]}}, {"a": {"in": [""]}}),
    ],
)
def test_other_conditions_are_other_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(where(**one)) != canonical(where(**other))


def test_a_column_named_split_stands_behind_the_split() -> None:
    filters = filter_of([("train", {"split": "mine"}), ("val", {})])
    assert filters.mask(where(split="val"), "images").tolist() == [False, True]


def test_a_collection_without_images_has_no_fields() -> None:
    assert filter_of([]).fields == []


# Trees

leaves = st.sampled_from(
    [
        {"word": "cat"},
        {"word": {"contains": "DOG"}},
        {"number": {"gte": 0}},
        {"number": None},
        {"flag": True},
        {"word": {"in": ["ß", None]}, "number": {"lt": 3}},
    ]
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda parts: {"and": parts}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda parts: {"or": parts}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda part: {"not": part}, inner)
        | st.builds(lambda part, leaf: {**leaf, "or": [part]}, inner, leaves)
    ),
    max_leaves=8,
)


def passes(row: Mapping[str, Scalar], tree: Mapping[str, Any]) -> bool:
    """Whether one image fulfils a tree of the ``leaves`` above, in plain Python."""

    def leaf(name: str, wanted: Any) -> bool:
        value = row.get(name)
        if not isinstance(wanted, dict):
            return value is wanted if isinstance(wanted, bool) or wanted is None else value == wanted
        if "in" in wanted:
            return value in wanted["in"]
        if value is None:
            return False
        if "contains" in wanted:
            return str(wanted["contains"]).casefold() in str(value).casefold()
        return bool(value >= wanted["gte"] if "gte" in wanted else value < wanted["lt"])

    return all(
        all(passes(row, part) for part in entry)
        if name == "and"
        else any(passes(row, part) for part in entry)
        if name == "or"
        else not passes(row, entry)
        if name == "not"
        else leaf(name, entry)
        for name, entry in tree.items()
    )


@settings(max_examples=60, deadline=None)
@given(rows, trees)
def test_a_tree_lets_through_what_it_says(data: list[dict[str, Scalar]], tree: dict[str, Any]) -> None:
    data.append({"number": 1, "word": "cat", "flag": True})
    assert found(data, **tree) == [i for i, row in enumerate(data) if passes(row, tree)]


def test_the_opposite_of_a_condition_is_every_other_image() -> None:
    data: list[dict[str, Scalar]] = [{"place": "Rome"}, {"place": "Oslo"}, {}]
    assert found(data, **{"not": {"place": "Rome"}}) == [1, 2]
    assert found(data, **{"not": [{"place": "Rome"}, {"place": None}]}) == [1]


def test_a_field_inside_of_a_tree_must_be_there() -> None:
    filters = filter_of([("train", {"year": 1})])
    with pytest.raises(InvalidQuery, match=r"there is no field colour; the fields are year, split"):
        filters.check(where(**{"or": [{"year": 1}, {"not": {"colour": "red"}}]}))


def test_another_tree_is_another_key() -> None:
    conditions = [{"a": 1}, {"b": 2}]
    keys = {canonical(where(**{combiner: conditions})) for combiner in ("and", "or", "not")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"before": "2024-05"}, ["2023", "2024-04-30T23:59:59Z"]),
        ({"during": "2024-05"}, ["2024-05-01", "2024:05:17 12:30:00", "2024-05"]),
        ({"after": "2024-05"}, ["2024-06", "2024-06-01T00:30+00:00"]),
        ({"during": "2024"}, ["2024-04-30T23:59:59Z", "2024-05-01", "2024:05:17 12:30:00", "2024-05", "2024-06",
                              "2024-06-01T00:30+00:00", "2024", "2024-06-01T00:30+02:00"]),
        ({"during": "2024-05-31T22:30"}, ["2024-06-01T00:30+02:00"]),
        ({"before": "2024-05", "after": "2023"}, ["2024-04-30T23:59:59Z"]),
    ],
)  # fmt: skip
def test_dates_are_compared_as_the_periods_that_they_name(condition: Any, expected: list[str]) -> None:
    """2024 is not before May 2024 and not after it; what is no date is neither."""
    taken = ["2023", "2024-04-30T23:59:59Z", "2024-05-01", "2024:05:17 12:30:00", "2024-05", "2024-06"]
    taken += ["2024-06-01T00:30+00:00", "2024", "soon", "2024-06-01T00:30+02:00"]
    data: list[dict[str, Scalar]] = [{"taken": text} for text in taken]
    data.append({})
    rows = found(data, taken=condition)
    if condition == {"during": "2024-05"}:
        expected = [*expected, "2024-06-01T00:30+02:00"]  # 22:30 of the 31st in UTC
    assert [taken[row] for row in rows] == expected


def test_numbers_of_four_digits_are_years_beside_dates() -> None:
    data: list[dict[str, Scalar]] = [{"year": year} for year in (1999, 2023, 2024, 2024.5, 31, 20240517, None)]
    assert found(data, year={"before": "2024-05"}) == [0, 1]
    assert found(data, year={"during": "2024"}) == [2]
    assert found(data, year={"after": "2022-12-31"}) == [1, 2]


def test_truth_values_are_no_dates() -> None:
    with pytest.raises(InvalidQuery, match=r"where\.field: after needs a field of dates; this field is boolean"):
        found([{"field": True}], field={"after": "2024"})


# What cannot be asked


def test_an_unknown_field_is_refused_with_those_there_are() -> None:
    filters = filter_of([("train", {"year": 1, "place": "x"})])
    with pytest.raises(InvalidQuery, match=r"there is no field colour; the fields are place, year, split"):
        filters.mask(where(colour="red"), "images")


@pytest.mark.parametrize(
    ("values", "condition", "says"),
    [
        ([1, 2], "one", "'one' is not a number; this field is numeric"),
        ([1, 2], True, "'true' is not a number"),
        ([1, 2], {"gt": "many"}, "'many' is not a number"),
        ([1, 2], {"gt": "nan"}, "'nan' is not a number"),
        ([1, 2], 10**400, "'1000.*' is not a number"),
        ([1, 2], {"contains": "1"}, "contains needs a text field; this field is numeric"),
        ([True, False], "maybe", "'maybe' is not true or false; this field is boolean"),
        ([True, False], {"lt": 1}, "lt needs a number or text field; this field is boolean"),
        ([True, False], {"contains": "t"}, "contains needs a text field; this field is boolean"),
    ],
)
def test_what_a_field_cannot_be_compared_with_is_refused(values: list[Scalar], condition: Any, says: str) -> None:
    with pytest.raises(InvalidQuery, match=rf"where\.field: .*{says}"):
        found([{"field": value} for value in values], field=condition)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ({"like": "x"}, "unknown operator like; the operators are in, gt, gte, lt, lte, contains"),
        ({"\ud800": "x"}, "unknown operator "),
        ({}, "give an operator with a value that is not null"),
        ({"gt": None}, "give an operator with a value that is not null"),
        ({"in": []}, "at least 1 item"),
        ({"in": ["x"] * 101}, "at most 100 items"),
        ({"in": "x"}, "must be a list"),
        ({"in": [["x"]]}, "must be a text"),
        ({"gt": float("nan")}, "finite"),
        ({"contains": ""}, "must not be empty"),
        ({"contains": 5}, "must be a text"),
        (["x"], "must be a text"),
        (float("inf"), "finite"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(condition: Any, says: str) -> None:
    with pytest.raises(InvalidQuery, match=rf"where\.field.*{says}"):
        where(field=condition)


# Types of columns


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, None], "boolean"),
        ([1, 2.5, None], "number"),
        (["1", "-2.50", "0"], "number"),
        (["1", 2], "number"),
        (["1", "two"], "text"),
        (["007", "8"], "text"),
        (["1e5"], "text"),
        ([2**53 + 1], "text"),
        (["123456789012345678"], "text"),
        ([True, 1], "text"),
        ([""], "text"),
    ],
)
def test_the_type_of_a_column_is_read_off_its_values(values: list[Scalar], kind: str) -> None:
    assert info_of(values).type == kind


def test_a_value_is_taken_in_the_type_of_its_column() -> None:
    assert found([{"year": "2009"}, {"year": "2010"}], year=2009) == [0]
    assert found([{"year": 2009}, {"year": 2010}], year="2009") == [0]
    assert found([{"code": "007"}, {"code": "7"}], code=7) == [1]
    assert found([{"flag": True}, {"flag": False}], flag="false") == [1]


def test_large_ids_are_told_apart() -> None:
    assert found([{"id": 2**60}, {"id": 2**60 + 1}], id=2**60 + 1) == [1]


def test_fields_tell_what_there_is_to_ask_for() -> None:
    data: list[tuple[Any, dict[str, Scalar]]] = [
        ("train", {"place": "Oslo", "year": "2001", "indoor": True}),
        ("test", {"place": "Rome", "year": "1999"}),
        ("train", {"place": "Rome", "indoor": False, "empty": None}),
        ("train", {"indoor": True}),
    ]
    values = filter_of(data).fields
    assert values == [
        FieldInfo.model_validate(info)
        for info in (
            {
                "name": "indoor",
                "type": "boolean",
                "count": 3,
                "values": [{"value": True, "count": 2}, {"value": False, "count": 1}],
            },
            {
                "name": "place",
                "type": "text",
                "count": 3,
                "values": [{"value": "Rome", "count": 2}, {"value": "Oslo", "count": 1}],
            },
            {"name": "year", "type": "number", "count": 2, "values": [], "min": 1999, "max": 2001},
            {
                "name": "split",
                "type": "text",
                "count": 4,
                "values": [{"value": "train", "count": 3}, {"value": "test", "count": 1}],
            },
        )
    ]


def test_of_many_values_the_most_frequent_are_told() -> None:
    values = [f"v{i:03}" for i in range(200)] + ["v150"] * 2
    info = info_of(values)
    assert len(info.values) == MAX_VALUES
    assert (info.values[0].value, info.values[0].count) == ("v150", 3)


def test_a_condition_is_the_same_after_a_round_trip() -> None:
    request = search_request([text("x")], where={"a": {"in": [1, None, "x"], "gt": 2}, "b": None, "c": True})
    again = SearchRequest.model_validate_json(request.model_dump_json(by_alias=True, exclude_defaults=True))
    assert again == request
    assert isinstance(again.where and again.where["a"], Condition)


def test_text_in_another_unicode_form_is_the_same_text() -> None:
    composed, decomposed = "Z\u00fcrich", "Zu\u0308rich"
    data: list[dict[str, Scalar]] = [{"place": composed}, {"place": "Bern"}]
    assert found(data, place=decomposed) == found(data, place=composed) == [0]
    assert found(data, place={"contains": decomposed[:4]}) == [0]
