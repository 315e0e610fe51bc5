"""URLs in places where a path of this machine may stand as well."""

import os
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

BUCKETS = ("s3", "gs")
"""The schemes of object stores that are read and written."""


def is_url(place: str) -> bool:
    """Whether a place is a URL, and no path of this machine."""
    return "://" in place


def shown_place(place: str) -> str:
    """A place for people and for records: a path as it is, a URL without what may be a secret."""
    if not is_url(place):
        return place
    try:
        return _without_secrets(urlsplit(place))
    except ValueError:
        return place.partition("?")[0]


def whole_place(place: str) -> str:
    """What records call a place: an absolute path, or a URL without what may be a secret."""
    return shown_place(place) if is_url(place) else str(Path(place).resolve())


def name_of_place(place: str) -> str:
    """The last part of a place, as text that can be stored: bytes of a path that are not UTF-8 are escaped."""
    return os.fsencode(Path(place).name).decode(errors="backslashreplace")


def _without_secrets(parts: SplitResult) -> str:
    """The URL for people: without a password, and without a query, which may be a signature."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
