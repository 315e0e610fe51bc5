"""Filters as a person writes them: what a text means, and at which character it is wrong."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clip_retrieval.contract.conditions import (
    MAX_CONDITIONS_IN_ALL,
    MAX_VALUE,
    Condition,
    conditions_of,
    plain_conditions,
    read_conditions,
)
from clip_retrieval.contract.filter_language import MAX_FILTER_TEXT, MAX_NESTED, FilterError, parse_filter
from clip_retrieval.contract.iso_dates import Period, period_of
from clip_retrieval.contract.queries import search_request, text
from clip_retrieval.errors import InvalidQuery


@pytest.mark.parametrize(
    ("written", "tree"),
    [
        ("year = 2020", {"year": "2020"}),
        ("year==2020", {"year": "2020"}),
        ("year>=2020", {"year": {"gte": "2020"}}),
        ("year > -1.5", {"year": {"gt": "-1.5"}}),
        ("year < 5", {"year": {"lt": "5"}}),
        ("year <= 5", {"year": {"lte": "5"}}),
        ("tags ~ sea", {"tags": {"contains": "sea"}}),
        ("tags contains sea", {"tags": {"contains": "sea"}}),
        ("tags CONTAINS sea", {"tags": {"contains": "sea"}}),
        ("tags not contains sea", {"not": [{"tags": {"contains": "sea"}}]}),
        ("place != Paris", {"not": [{"place": "Paris"}]}),
        ("place in (Paris, New York, null)", {"place": {"in": ["Paris", "New York", None]}}),
        ("place not in (Paris)", {"not": [{"place": {"in": ["Paris"]}}]}),
        ("place is null", {"place": None}),
        ("place = null", {"place": None}),
        ('place = "null"', {"place": "null"}),
        ("place is not null", {"not": [{"place": None}]}),
        ("taken during 2024-05", {"taken": {"during": "2024-05"}}),
        ("taken before 2024", {"taken": {"before": "2024"}}),
        ("taken not after 2024-05-17T12:30", {"not": [{"taken": {"after": "2024-05-17T12:30"}}]}),
        ("title of it = a  long title", {"title of it": "a  long title"}),
        ("title=this is not in it", {"title": "this is not in it"}),
        ("title = it's", {"title": "it's"}),
        ("\"and\" = 'or'", {"and": "or"}),
        (r'title = "say \"no\" \\ (or not)"', {"title": 'say "no" \\ (or not)'}),
        ("a=1 and b=2 and c=3", {"a": "1", "b": "2", "c": "3"}),
        ("a>1 and a<3", {"and": [{"a": {"gt": "1"}}, {"a": {"lt": "3"}}]}),
        ("a=1 or b=2 and c=3", {"or": [{"a": "1"}, {"b": "2", "c": "3"}]}),
        ("(a=1 or b=2) and not c=3", {"and": [{"or": [{"a": "1"}, {"b": "2"}]}, {"not": [{"c": "3"}]}]}),
        ("not not a=1", {"not": [{"not": [{"a": "1"}]}]}),
        ("NOT (a=1 OR b=2)", {"not": [{"or": [{"a": "1"}, {"b": "2"}]}]}),
        (
            'year >= 2020 and (place = "Paris" or not tags contains sea)',
            {
                "and": [
                    {"year": {"gte": "2020"}},
                    {"or": [{"place": "Paris"}, {"not": [{"tags": {"contains": "sea"}}]}]},
                ]
            },
        ),
    ],
)
def test_a_text_means_a_tree(written: str, tree: dict[str, Any]) -> None:
    assert parse_filter(written) == tree
    assert plain_conditions(written) == tree
    assert read_conditions(tree) == read_conditions(written)


@pytest.mark.parametrize(
    ("written", "position", "says"),
    [
        ("", 1, "a condition is missing"),
        ("year", 5, "an operator must follow year, not the end"),
        ("year >=", 8, "a value must follow >="),
        ("year >= and a = 1", 9, "a value must follow >=, not and"),
        ("= soft", 1, "a condition is missing, not ="),
        ("a = 1 or", 9, "a condition is missing"),
        ("a = 1 b = 2", 9, "= is not expected here"),
        ("(a = 1", 7, "the bracket of position 1 is not closed"),
        ("a = 1)", 6, ") is not expected here"),
        ("a in Oslo", 6, "in needs its values in brackets"),
        ("a in (Oslo", 11, "the bracket of position 6 is not closed"),
        ("a not = 1", 7, "must follow not"),
        ("a is 5", 6, "null or not null must follow is"),
        ("a > null", 5, "null cannot follow >; write is null"),
        ('place = "Paris', 9, 'the quote " is not closed'),
        ("a ! b", 3, "! is no operator"),
        ("taken after 2024-13", 13, "2024-13 is no date; write 2024, 2024-05"),
        ("place = Trinidad and Tobago", 28, "a value that has and or or in it stands in quotes"),
        ("not " * (MAX_NESTED + 1) + "a = 1", 37, "inside each other"),
        ("a = " + "x" * MAX_FILTER_TEXT, MAX_FILTER_TEXT + 1, "more than 10,000 characters"),
    ],
)
def test_an_error_says_where(written: str, position: int, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(written)
    assert str(caught.value).startswith(f"position {position}: ")
    assert says in str(caught.value)
    assert caught.value.position == position - 1
    with pytest.raises(InvalidQuery, match=rf"where: position {position}: "):
        search_request([text("x")], where=written)


@given(st.text(alphabet="ab \"'\\()=<>!~,.inotradx0\n", max_size=40))
def test_any_text_is_a_tree_or_an_error_with_a_position(written: str) -> None:
    position = 0
    try:
        assert parse_filter(written)
    except FilterError as error:
        position = error.position
    assert 0 <= position <= len(written)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_can_be_a_value_in_quotes(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_filter(f'field = "{quoted}"') == {"field": value}


# The tree in JSON


@pytest.mark.parametrize(
    ("tree", "plain"),
    [
        ({"not": {"a": 1}}, {"not": [{"a": 1}]}),
        ({"not": [{"a": 1}, {"b": 2}]}, {"not": [{"a": 1}, {"b": 2}]}),
        ({"not": {"in": ["x"]}}, {"not": {"in": ["x"]}}),
        ({"and": "x", "or": 5, "not": None}, {"and": "x", "or": 5, "not": None}),
        ({"or": ["a = 1", {"b": 2}]}, {"or": [{"a": "1"}, {"b": 2}]}),
        ('{"a": {"gt": 1}}', {"a": {"gt": 1}}),
    ],
)
def test_the_forms_of_a_tree(tree: Any, plain: dict[str, Any]) -> None:
    """Fields may be called and, or and not: no field has a list, or an object that is no condition."""
    assert plain_conditions(tree) == plain
    assert plain_conditions(plain) == plain


def test_a_condition_inside_of_a_tree_is_a_condition() -> None:
    trees = read_conditions({"or": [{"a": {"gt": 1}}]})["or"]
    assert isinstance(trees, list)
    assert trees[0].root == {"a": Condition.model_validate({"gt": 1})}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"or": []}, "where: or needs conditions"),
        ({"and": [{}]}, "where: and needs conditions"),
        ({"or": [{"a": {"like": 1}}]}, r"where\.or\..*a.*: unknown operator like"),
        ({"or": [5]}, r"where\.or\..*0: must be an object"),
        ({"or": ["a ="]}, r"where\.or\..*0: position 4: a value must follow ="),
        ({"a": {"before": "May"}}, r"where\.a\..*before: May is no date"),
        ({"or": [{str(n): 1} for n in range(MAX_CONDITIONS_IN_ALL + 1)]}, "has 33 conditions; the most is 32"),
        ('{"a": ', "where: begins as JSON, but is none"),
        (5, "where: must be an object"),
    ],
)
def test_what_is_no_tree_is_refused_with_its_place(tree: Any, says: str) -> None:
    with pytest.raises(InvalidQuery, match=says):
        read_conditions(tree)


def test_a_tree_has_a_bounded_depth() -> None:
    tree: dict[str, Any] = {"a": 1}
    for _ in range(100_000):
        tree = {"not": [tree]}
    with pytest.raises(InvalidQuery, match="more than 20 objects inside each other"):
        read_conditions(tree)


def test_the_deepest_text_is_a_tree_that_a_request_takes() -> None:
    inner = "a = 1"
    for _ in range(MAX_NESTED):
        inner = f"x = 1 and y = 1 or ({inner})" if inner.count("=") < 28 else f"({inner})"
    assert read_conditions(inner)


# Dates


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("1970", 0, 365 * 86_400),
        ("1970-02", 31 * 86_400, 59 * 86_400),
        ("1972-02", 761 * 86_400, 790 * 86_400),
        ("1970-12", 334 * 86_400, 365 * 86_400),
        ("1970-01-02", 86_400, 2 * 86_400),
        ("1970-01-02T01:02", 90_120, 90_180),
        ("1970-01-02 01:02:03", 90_123, 90_124),
        ("1970-01-02T01:02:03.5Z", 90_123, 90_124),
        ("1970-01-02T01:02+01:00", 86_520, 86_580),
        ("1970:01:02 01:02:03", 90_123, 90_124),
    ],
)
def test_a_date_is_the_period_that_it_names(text: str, start: int, end: int) -> None:
    assert period_of(text) == Period(start, end)


@pytest.mark.parametrize(
    "text", ["", "May", "0000", "20", "2024-13", "2023-02-29", "2024-5", "2024-05-17T25:00", "2024-05-17T12:00+25:00"]
)
def test_what_is_no_date_has_no_period(text: str) -> None:
    assert period_of(text) is None


def test_the_last_year_that_there_is_ends() -> None:
    assert period_of("9999") is not None
    assert period_of("9999-12") is not None


def test_a_request_takes_a_tree_a_text_and_no_list() -> None:
    assert search_request([text("x")], where="a = 1").where == {"a": "1"}
    with pytest.raises(ValidationError):
        type(search_request([text("x")])).model_validate({"queries": [{"text": "x"}], "where": ["a = 1"]})


# Bounds: texts count as what they mean


def nested(depth: int) -> str:
    """A filter whose ``not`` are inside each other, as a JSON text."""
    return '{"not":[' * depth + '{"a": 1}' + "]}" * depth


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ('{"or":[' + ",".join(['{"a":[]}'] * 80_000) + "]}", "has more than 4,096 values"),
        ('{"a": [' + "1," * 5000 + "1]}", "has more than 4,096 values"),
        ({"or": ["a = 1 or " * 1100 + "a = 1"] * 900}, "has more than 32 conditions"),
        ({"or": ["(" * 9000] * 900}, "has too much text: all texts in it may have 100,000 characters together"),
        ({"or": ['{"a": "' + "x" * 200_000] * 10}, "and 2,000,000 where they are JSON"),
        ({"or": [json.dumps({"or": [1] * 3000})] * 10}, "has more than 4,096 values"),
        (nested(20), "more than 20 objects inside each other"),
        (nested(250), "more than 20 objects inside each other"),
        (nested(80_000), "more than 20 objects inside each other"),
        ({"or": [json.dumps({"and": [nested(18)]})]}, "more than 20 objects inside each other"),
        ('{"a": ' + "9" * 5000 + "}", "a number of more digits than any field has"),
        ({"\ud800": 1}, r"character 1 of '\\ud800' is half a character"),
        ("shade = \ud800", r"character 9 of .* is half a character"),
        ('{"\\ud800": 1}', "is half a character"),
        ({"a": {"before": "\udfff"}}, "is half a character"),
    ],
    ids=range(15),
)
def test_what_is_too_large_is_refused_at_once(where: Any, says: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidQuery, match=says):
        read_conditions(where)
    assert time.process_time() - began < 5, "a request stops a worker"


def test_the_largest_filter_in_texts_is_one() -> None:
    assert read_conditions(nested(18))
    assert read_conditions({"or": ["a = 1"] * MAX_CONDITIONS_IN_ALL})
    assert read_conditions(json.dumps({"a": {"in": ["x" * MAX_VALUE] * 100}}))


@pytest.mark.parametrize("count", [15, 16, 17, MAX_CONDITIONS_IN_ALL])
def test_as_many_fields_as_conditions_may_be_joined(count: int) -> None:
    text = " and ".join(f"f{n} = {n}" for n in range(count))
    assert sum(1 for _ in conditions_of(read_conditions(text))) == count


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (
            {"my col": [1, 2]},
            'where.my col: must be a text, a number, true, false or null .*; several values are {"in"',
        ),
        ({"split": {"gt": [1]}}, "where.split.gt: must be a text or a number"),
        ({"or": [{"a": {"like": 1}}]}, "where.or.0.a: unknown operator like"),
        ({"a": {"in": ["x", ["y"]]}}, "where.a.in.1: must be a text"),
        ({"a": float("inf")}, "where.a: must be a finite number"),
        ({"a": "x" * (MAX_VALUE + 1)}, "where.a: must have at most 10,000 characters"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_once_and_by_names_that_a_person_wrote(
    where: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidQuery, match=says) as error:
        read_conditions(where)
    assert str(error.value).count("where") == 1
