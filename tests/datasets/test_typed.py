"""A column of text gets the type that all its values have, as a spreadsheet writes them."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.columns import described, write_columns
from clip_retrieval.datasets.typed import column_type, type_columns
from clip_retrieval.records import Scalar

_TEXTS = st.from_regex(r"[+-]?\d{1,3}([., ]?\d{3}){0,6}([.,]\d{1,3})?", fullmatch=True) | st.sampled_from(
    ["", " 5", "x", "TRUE", "2024-12-31", "31.12.2024"]
)


@pytest.mark.parametrize(
    ("values", "kind", "typed"),
    [
        (["1", "-2.5", "", "+3"], "number", ["1", "-2.5", "3"]),
        (["1,234", "12"], "text", ["1,234", "12"]),
        (["1,234", "1,234,567"], "number", ["1234", "1234567"]),
        (["1,234.5", "7"], "number", ["1234.5", "7"]),
        (["1.234,5", "7"], "number", ["1234.5", "7"]),
        (["1 234", "7,5"], "number", ["1234", "7.5"]),
        (["1\u202f234", "7"], "number", ["1234", "7"]),
        (["560 001", "110 001"], "text", ["560 001", "110 001"]),
        (["192.168.100.101"], "text", ["192.168.100.101"]),
        (["1.100.200", "2"], "text", ["1.100.200", "2"]),
        (["1234567890123456"], "number", ["1234567890123456"]),
        (["1,234,567,890,123,456,789"], "text", ["1,234,567,890,123,456,789"]),
        (["3,5", "0,25"], "number", ["3.5", "0.25"]),
        (["TRUE", "False"], "boolean", [True, False]),
        (["WAHR", "FALSCH"], "boolean", [True, False]),
        (["31.12.2024", "1.2.2024"], "date", ["2024-12-31", "2024-02-01"]),
        (["12/31/2024", "1/2/2024"], "date", ["2024-12-31", "2024-01-02"]),
        (["31/12/2024", "1/2/2024"], "date", ["2024-12-31", "2024-02-01"]),
        (["2024-5-1", "2024/12/31"], "date", ["2024-05-01", "2024-12-31"]),
        (["03/04/2024"], "text", ["03/04/2024"]),
        (["31.02.2024"], "text", ["31.02.2024"]),
        (["007", "12"], "text", ["007", "12"]),
        (["12345678901234567890"], "text", ["12345678901234567890"]),
        (["TRUE", "maybe"], "text", ["TRUE", "maybe"]),
        (["yes", "no"], "text", ["yes", "no"]),
    ],
)
def test_text_is_typed_as_a_whole_column(values: list[Scalar], kind: str, typed: list[Scalar]) -> None:
    found, convert = column_type(values)
    assert found == kind
    assert [convert(value) for value in values if isinstance(value, str) and value] == typed


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5, None], "number"),
        ([True, False], "boolean"),
        ([True, 1], "text"),
        ([1, "x"], "text"),
        ([None], "text"),
        ([1, "5"], "number"),
        ([5, 2**53 + 1], "text"),
        ([5, ""], "number"),
    ],
)
def test_values_of_json_have_their_type(values: list[Scalar], kind: str) -> None:
    assert column_type(values)[0] == kind


@settings(deadline=None)
@given(
    st.lists(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | _TEXTS, min_size=1)
)
def test_a_type_is_that_of_the_field_in_an_artifact(values: list[Scalar]) -> None:
    rows = [{"x": value} for value in values]
    kinds = type_columns(rows)
    with tempfile.TemporaryDirectory() as folder:
        write_columns(Path(folder) / "columns", [("train", row) for row in rows])
        stored = {info.name: info.type for info in described(Path(folder) / "columns")}
    assert kinds.get("x", "none").replace("date", "text") == stored.get("x", "none")


def test_empty_text_is_no_value_of_a_column_of_numbers() -> None:
    rows: list[dict[str, Scalar]] = [{"year": 1999}, {"year": ""}]
    assert (type_columns(rows), rows) == ({"year": "number"}, [{"year": 1999}, {"year": None}])


def test_a_column_without_a_value_is_no_field() -> None:
    rows: list[dict[str, Scalar]] = [{"year": "1999", "note": None}, {"year": "2001", "note": None}]
    assert type_columns(rows) == {"year": "number"}
