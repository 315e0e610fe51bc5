"""The columns in which img2dataset writes what came of a download.

Its writers give every row ``status`` (``success``, ``failed_to_download`` or ``failed_to_resize``) and
``error_message``, beside ``url``, ``key``, ``width``, ``original_width``, ``sha256``, ``exif`` and more.
Source: https://github.com/rom1504/img2dataset, "Output format".
"""

from collections.abc import Iterable, Mapping

STATUS_COLUMNS = ("status", "error_message")
BOOKKEEPING = frozenset({*STATUS_COLUMNS, "key", "exif"})
"""Columns that say nothing of the image that a search could use: the key is the name, and EXIF is a text of pages."""


def has_status(columns: Iterable[str]) -> bool:
    """Whether the columns are those of img2dataset."""
    return {*STATUS_COLUMNS} <= {*columns}


def failure_of(values: Mapping[str, object]) -> str | None:
    """What became of a row without success, as a kind that can be counted; None for success."""
    status = values.get("status")
    if status == "success" or not isinstance(status, str):
        return None
    reason = values.get("error_message")
    said = " ".join(str(reason).split())[:80] if reason else "no reason given"
    return f"images with the status {status} ({said})"
