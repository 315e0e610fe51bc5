"""The URLs of published versions, such as ``s3://bucket/photos/latest``, and the names that they end in."""

import re

from clip_retrieval.errors import SourceError
from clip_retrieval.urls import BUCKETS, shown_place

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_TAKEN = ("files", "versions")
_VERSION = r"[0-9a-f]{16}"


def check_published(url: str) -> None:
    """Raise SourceError for a URL at which nothing can be published; asks no store."""
    shown = shown_place(url)
    scheme, _, rest = shown.partition("://")
    folder, _, name = rest.rstrip("/").rpartition("/")
    if scheme not in BUCKETS or not folder:
        raise SourceError(f"{shown} names no published version; write s3://BUCKET/FOLDER/latest, or gs://…")
    check_pointer(name)


def check_pointer(name: str) -> None:
    """Raise SourceError for a name under which nothing can be published."""
    if not re.fullmatch(_NAME, name) or name in _TAKEN:
        raise SourceError(
            f"{name!r} is no name of a published version; it has letters, digits and -._ and is not files or versions"
        )


def check_new_pointer(name: str) -> None:
    """As ``check_pointer``, for a name that is to stand for a version: it may not look like one, which is read as that
    version."""
    check_pointer(name)
    if re.fullmatch(_VERSION, name):
        raise SourceError(f"{name!r} looks like a version, which stands for itself alone; choose another name")
