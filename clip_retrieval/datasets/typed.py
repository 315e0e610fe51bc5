"""The types of metadata that a table gives as text: numbers, dates and truth values as a spreadsheet writes them.

A column is typed as a whole: every value must fit. A number with separators of thousands or a decimal comma becomes a
plain number, and a date becomes ISO 8601 (``2024-12-31``), so that text order is the order of time. A column that could
be read in two ways stays text: nothing but dates such as ``03/04/2024``, nothing but numbers such as ``1,234``, and
nothing but groups by points or spaces, as ``192.168.100.101`` and ``560 001`` have them. ``field_type`` says what is a
number, here and in an artifact.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date

from clip_retrieval.records import Scalar, field_type

_TRUE = frozenset({"true", "wahr", "vrai", "verdadero"})
_FALSE = frozenset({"false", "falsch", "faux", "falso"})
_PLAIN = re.compile(r"[+-]?(0|[1-9]\d{0,14})(\.\d{1,15})?")
"""A leading zero makes a code, such as a postcode, and more digits an id: both stay text."""
_THOUSANDS_COMMA = re.compile(r"[+-]?([1-9]\d{0,2}(,\d{3})+|0|[1-9]\d{0,14})(\.\d{1,15})?")
_THOUSANDS_POINT = re.compile(r"[+-]?([1-9]\d{0,2}([.\u00a0\u202f ]\d{3})+|0|[1-9]\d{0,14})(,\d{1,15})?")
_ONE_GROUP = re.compile(r"[+-]?([1-9]\d{0,2},\d{3}|\d+)")
"""1,234 alone is a thousand to some and one and a bit to others."""
_GROUPS_ALONE = re.compile(r"[+-]?([1-9]\d{0,2}([. ]\d{3})+|\d+)")
"""An address of a machine, a version and a postcode look so, too; nothing but a number has narrow spaces."""
_ISO = re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})")
_DAY_FIRST = re.compile(r"(?P<day>\d{1,2})[-/.](?P<month>\d{1,2})[-/.](?P<year>\d{4})")
_MONTH_FIRST = re.compile(r"(?P<month>\d{1,2})[-/.](?P<day>\d{1,2})[-/.](?P<year>\d{4})")

Convert = Callable[[str], Scalar]


def column_type(values: Iterable[Scalar]) -> tuple[str, Convert]:
    """The type of a column (number, date, boolean or text) and how each of its texts becomes a value of it.

    ``values`` that are no text have their type already. Empty text and None count for nothing.
    """
    present = [value for value in values if value is not None and value != ""]
    texts = [value.strip() for value in present if isinstance(value, str)]
    if len(texts) < len(present):
        return _as_it_is(present), str
    if not texts:
        return "text", str
    for kind, fits, two_readings, convert in _READINGS:
        if all(map(fits, texts)):
            unclear = two_readings is not None and all(map(two_readings.fullmatch, texts))
            has_ids = kind == "number" and _as_it_is(map(convert, texts)) != "number"
            return ("text", str) if unclear or has_ids else (kind, convert)
    days = [reading for reading in (_DAY_FIRST, _MONTH_FIRST) if all(_date(reading, text) for text in texts)]
    points = all("." in text for text in texts)  # 31.12.2024 is never month first
    if days and (len(days) == 1 or points):
        return "date", lambda text: str(_date(days[0], text.strip()))
    return _as_it_is(present), str


def type_columns(rows: Sequence[dict[str, Scalar]]) -> dict[str, str]:
    """Give every column of ``rows`` its type, in place; returns the type of each that has a value."""
    columns: dict[str, list[Scalar]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                columns.setdefault(name, []).append(value)
    kinds = {}
    for name, values in columns.items():
        kinds[name], convert = column_type(values)
        if kinds[name] == "text":
            continue
        for row in rows:
            if isinstance(value := row.get(name), str):
                row[name] = convert(value) if value else None
    return kinds


def _as_it_is(values: Iterable[Scalar]) -> str:
    """The type of a field with these values."""
    kinds = {field_type(value) for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else "text"


def _date(pattern: re.Pattern[str], text: str) -> date | None:
    match = pattern.fullmatch(text)
    if match is None:
        return None
    try:
        return date(*(int(match[part]) for part in ("year", "month", "day")))
    except ValueError:
        return None


def _plain(text: str) -> str:
    return text.strip().removeprefix("+")


def _without(thousands: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        for sign in thousands:
            text = text.replace(sign, "")
        return _plain(text.replace(",", "."))

    return convert


_READINGS: Sequence[tuple[str, Callable[[str], object], re.Pattern[str] | None, Convert]] = (
    ("boolean", lambda text: text.casefold() in _TRUE | _FALSE, None, lambda text: text.strip().casefold() in _TRUE),
    ("number", _PLAIN.fullmatch, None, _plain),
    ("number", _THOUSANDS_COMMA.fullmatch, _ONE_GROUP, _without(",")),
    ("number", _THOUSANDS_POINT.fullmatch, _GROUPS_ALONE, _without(".\u00a0\u202f ")),
    ("date", lambda text: _date(_ISO, text) is not None, None, lambda text: str(_date(_ISO, text.strip()))),
)
"""Type, what fits it, what is unclear if all texts of the column are so, and how a text becomes a value."""
