"""Dates as texts write them, each as the period of time that it names: ``2024-05`` is all of May.

The forms are those of ISO 8601 down to seconds, with a blank for the T too, and that of EXIF (``2024:05:17 12:30:00``).
A time without a zone is taken as UTC.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

FORMS = "2024, 2024-05, 2024-05-17 or 2024-05-17T12:30"

_DATE = re.compile(
    r"(?P<year>\d{4})(?:[-:](?P<month>\d\d)(?:[-:](?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d+)?)?"
    r"(?: ?(?P<zone>Z|[+-]\d\d(?::?\d\d)?))?)?)?)?",
    re.ASCII,
)
_EPOCH = date(1970, 1, 1).toordinal()
_DAY = 86_400


class Period(NamedTuple):
    """From ``start`` to just before ``end``, in seconds since 1970 in UTC."""

    start: int
    end: int


def period_of(text: str) -> Period | None:
    """The period that a text names; None if it is no date."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (
        None if found[name] is None else int(found[name])
        for name in ("year", "month", "day", "hour", "minute", "second")
    )
    try:
        start = _seconds(date(year or 0, month or 1, day or 1))
        if hour is None or minute is None:
            return Period(start, start + _DAY * _days(year or 0, month, day))
        datetime(1, 1, 1, hour, minute, second or 0, tzinfo=UTC)  # raises for a time that no clock shows
        start += 3600 * hour + 60 * minute + (second or 0) - _offset(found["zone"] or "Z")
    except ValueError:
        return None
    return Period(start, start + (60 if second is None else 1))


def _days(year: int, month: int | None, day: int | None) -> int:
    """How many days the year, month or day has."""
    if day is not None:
        return 1
    first = date(year, month or 1, 1)
    last = date(year, 12, 31) if month is None else _last_of_month(first)
    return last.toordinal() - first.toordinal() + 1


def _last_of_month(first: date) -> date:
    return first.replace(day=31) if first.month == 12 else first.replace(month=first.month + 1) - timedelta(days=1)


def _seconds(day: date) -> int:
    return (day.toordinal() - _EPOCH) * _DAY


def _offset(zone: str) -> int:
    """The seconds that a zone is ahead of UTC. Raises ValueError for more hours or minutes than there are."""
    if zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return (3600 * hours + 60 * minutes) * (-1 if zone[0] == "-" else 1)
