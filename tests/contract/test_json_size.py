"""How much is in a JSON text is found before it is parsed, at once, whatever the text is."""

import json
import time

import pytest

from clip_retrieval.contract.json_size import MAX_DEPTH, excess, values_in


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[1, 2, 3, 4]", None),
        (b"[1, 2, 3, 4, 5]", "values"),
        (json.dumps({str(n): n for n in range(5)}).encode(), "values"),
        (b'["a, b, c, d, e, f", "g, h"]', None),
        (rb'["a \", b, c, \", d, e, f", "g, h"]', None),
        (b'["[[[[", "' + b"{" * 100 + b'"]', None),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        (b"[" * (MAX_DEPTH + 1), "depth"),
        (b'{"a":' * (MAX_DEPTH + 1), "depth"),
        (b'"never closed, ' + b"[,," * 1000, None),
        (b"", None),
    ],
)
def test_values_and_depth_are_counted_outside_of_texts(body: bytes, found: str | None) -> None:
    assert excess(body, 4) == found


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"0," * 5_000_000,
        b"{" + b'"k":0,' * 1_500_000,
        b"[" * 10_000_000,
        b"[]" * 5_000_000,
        b'"' + rb"\"" * 5_000_000,
        b'"' * 10_000_000 + b"," * 5000,
        b"\\" * 10_000_000 + b"," * 5000,
    ],
    ids=["numbers", "keys", "lists in lists", "lists", "an open text of quotes", "quotes", "backslashes"],
)
def test_ten_megabytes_of_anything_take_little_time(body: bytes) -> None:
    begun = time.process_time()
    excess(body, 4096)
    assert time.process_time() - begun < 3, "a quadratic search would take hours"


def test_the_values_of_a_parsed_body_are_counted_up_to_a_bound() -> None:
    assert values_in({"a": [1, 2], "b": {"c": 3}}, 100) == 5
    assert values_in("text", 100) == 0
    assert values_in([[0] * 1000] * 1000, 100) > 100
