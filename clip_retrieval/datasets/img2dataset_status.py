"""What img2dataset writes of its downloads: columns of every row, and counts of a shard.

Every row has ``status`` (``success``, ``failed_to_download`` or ``failed_to_resize``) and ``error_message``, beside
``url``, ``key``, ``width``, ``original_width``, ``sha256``, ``exif`` and more. Beside a shard ``00000`` lies
``00000_stats.json``, whose ``status_dict`` counts the messages.
Source: https://github.com/rom1504/img2dataset, img2dataset/writer.py and img2dataset/logger.py.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping

STATS_SUFFIX = "_stats.json"
_BOOKKEEPING = frozenset({"status", "error_message", "key", "exif", "txt"})


def bookkeeping(columns: Iterable[str]) -> frozenset[str]:
    """Of img2dataset's columns those that are no metadata, none if ``columns`` are not those of img2dataset.

    The key is the name of the image, ``txt`` repeats the caption, and EXIF is pages of text.
    """
    return _BOOKKEEPING if {*columns} >= {"status", "key"} else frozenset()


def failure_of(values: Mapping[str, object]) -> str | None:
    """What became of a row without success, as a kind that can be counted; None for success."""
    status = values.get("status")
    return None if status == "success" or not isinstance(status, str) else _kind(values.get("error_message"))


def failures_in(stats: bytes) -> Counter[str]:
    """How many images of a shard were not had, by kind, as its ``_stats.json`` counts them. Raises ValueError."""
    content = json.loads(stats)
    counts = content.get("status_dict", {}) if isinstance(content, dict) else {}
    if not isinstance(counts, dict):
        raise ValueError("its status_dict is not an object")
    failed = {message: count for message, count in counts.items() if message != "success" and isinstance(count, int)}
    return Counter({_kind(message): count for message, count in failed.items()})


def _kind(message: object) -> str:
    said = " ".join(str(message).split())[:80] if message else "no reason given"
    return f"images that img2dataset could not get ({said})"
