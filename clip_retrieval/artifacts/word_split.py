"""Texts, file names and values as the words that are compared: of the collection and of a query alike.

A text is split at all that is neither letter nor digit nor a mark of a letter; digits stay. Case is folded, compatible
forms are one (NFKC), and the diacritics of Latin, Greek and Cyrillic letters are dropped. Chinese and Japanese write no
spaces: their characters become overlapping pairs, as in Lucene's CJKBigramFilter.
"""

import re
import unicodedata
from collections.abc import Iterator

MAX_WORD = 64
"""Characters of a word that count."""

_ASCII = re.compile(r"[a-z0-9]+")
_DIACRITICS = re.compile("[\u0300-\u036f]")
_UNSPACED = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def words_of(text: str) -> list[str]:
    """The words of a text in its order, repeated ones too."""
    if text.isascii():
        found = _ASCII.findall(text.lower())
    else:
        folded = _DIACRITICS.sub("", unicodedata.normalize("NFKD", text).casefold())
        whole = unicodedata.normalize("NFC", folded)
        spaced = "".join(char if unicodedata.category(char)[0] in "LNM" else " " for char in whole)
        found = [word for part in spaced.split() for word in _of_part(part)]
    return [word[:MAX_WORD] for word in found]


def _of_part(part: str) -> Iterator[str]:
    for run in _RUNS.findall(part):
        if _IS_UNSPACED.match(run) and len(run) > 1:
            yield from (run[start : start + 2] for start in range(len(run) - 1))
        else:
            yield run
