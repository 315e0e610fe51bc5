"""How much is in a JSON text, found without parsing it.

A parser makes an object of some 60 bytes for each value, and the validation an error of a kilobyte for each that is
wrong. Both are bounded by counting first, which ends with the first value that is too many.
"""

import json
import re
from itertools import islice
from typing import Any, Literal

MAX_DEPTH = 64
"""Lists and objects inside each other; a request has six."""

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[,\[\]{}]', re.DOTALL)
"""A text as a whole, closed or not, or a sign of structure outside of texts."""
_COMMA = ord(",")
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_TOKENS = 6
"""Texts and signs of structure for each value, at most: a comma, its key, itself as a text, and the brackets of lists
and objects, of which each is a value too."""


def excess(body: bytes, most_values: int) -> Literal["values", "depth"] | None:
    """Whether a JSON text has more than ``most_values`` members and elements, or is nested deeper than ``MAX_DEPTH``.

    Texts are passed over, and the look ends with the answer. What is no JSON gets any answer.
    """
    if body.count(b",") < most_values and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return None  # those inside of texts count too, so this is on the safe side
    values, depth = 1, 0
    for number, token in enumerate(_TOKEN.finditer(body)):
        sign = body[token.start()]
        values += sign == _COMMA
        depth += (sign in _OPENING) - (sign in _CLOSING)
        if depth > MAX_DEPTH:
            return "depth"
        if values > most_values or number > _TOKENS * (most_values + MAX_DEPTH):
            return "values"
    return None


def read_json(text: str, most_values: int) -> Any:
    """The value of a JSON text that somebody else wrote.

    Raises JSONDecodeError for what is no JSON, and ValueError that says what of it is too much.
    """
    too_much = excess(text.encode("utf-8", "replace"), most_values)
    if too_much == "depth":
        raise ValueError(f"it has lists or objects more than {MAX_DEPTH} deep inside each other")
    if too_much == "values":
        raise ValueError(f"it has more than {most_values:,} values, which is the limit here")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's own limit
        raise ValueError("it has a number of too many digits") from None


def values_in(given: object, most: int) -> int:
    """How many values a parsed JSON value has inside; counting ends above ``most``."""
    count, left = 0, [given]
    while left and count <= most:
        one = left.pop()
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        count += len(inside)
        left.extend(islice(inside, most + 1))
    return count
