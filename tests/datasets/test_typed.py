"""A column of text gets the type that all its values have, as a spreadsheet writes them."""

import pytest

from clip_retrieval.datasets.typed import column_type, type_columns
from clip_retrieval.records import Scalar


@pytest.mark.parametrize(
    ("values", "kind", "typed"),
    [
        (["1", "-2.5", "", "+3"], "number", ["1", "-2.5", "3"]),
        (["1,234", "12"], "text", ["1,234", "12"]),
        (["1,234", "1,234,567"], "number", ["1234", "1234567"]),
        (["1,234.5", "7"], "number", ["1234.5", "7"]),
        (["1.234,5", "7"], "number", ["1234.5", "7"]),
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
    [([1, 2.5, None], "number"), ([True, False], "boolean"), ([True, 1], "text"), ([1, "x"], "text"), ([None], "text")],
)
def test_values_of_json_have_their_type(values: list[Scalar], kind: str) -> None:
    assert column_type(values)[0] == kind


def test_a_column_without_a_value_is_no_field() -> None:
    rows: list[dict[str, Scalar]] = [{"year": "1999", "note": None}, {"year": "2001", "note": None}]
    assert type_columns(rows) == {"year": "number"}
