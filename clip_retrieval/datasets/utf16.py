"""Whether a text is UTF-16 that has no byte order mark, and in which order its bytes stand.

Two things tell. A quarter of the bytes are control characters: the other bytes of the letters of an alphabet. Or the
text is no UTF-8, and read in pairs it is Chinese, Japanese or Korean: characters that are usual there, and no others.
"""

import codecs
import re

from clip_retrieval.datasets.code_page import Encoding, east_asian_rating

_SAMPLE_BYTES = 2**12
_SHORTEST = 8
"""Bytes. Fewer may be anything."""
_CONTROL = re.compile(rb"[\0-\x08\x0b\x0e-\x19\x1c-\x1f]")
_USUAL = re.compile(
    r"[\t\n\r -~\u00a0-\u06ff\u0900-\u1fff\u2010-\u2046\u2100-\u27bf\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3]"
    r"|[\uff01-\uff9f\U00010000-\U0010ffff]"
)
_USUAL_SHARE = 0.95
_LIKELY = -8.4
"""The least rating of a text. The tests' captions have -7.4 at least in UTF-16, and -9.6 at most in code pages."""


def utf16_of(start: bytes) -> Encoding | None:
    """The encoding of a text by its beginning, if it is UTF-16; None if it is not."""
    sample = start[: min(len(start) // 2 * 2, _SAMPLE_BYTES)]
    share, rating, order = max(_judged(sample, order) for order in ("utf-16-le", "utf-16-be"))
    if len(_CONTROL.findall(sample)) * 4 > len(sample):
        return Encoding(order)
    is_wide = len(start) % 2 == 0 and len(start) >= _SHORTEST and not _is_utf8(start)
    return Encoding(order) if is_wide and share >= _USUAL_SHARE and rating >= _LIKELY else None


def _judged(sample: bytes, order: str) -> tuple[float, float, str]:
    """The share of usual characters and the rating of the others than ASCII, if the bytes stand in this order."""
    text = sample.decode(order, "replace")
    return len(_USUAL.findall(text)) / max(len(text), 1), east_asian_rating(text), order


def _is_utf8(start: bytes) -> bool:
    """Whether the beginning of a text may be that of UTF-8; its last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True
