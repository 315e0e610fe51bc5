"""The languages that a tokenizer can mark its texts with: NLLB's begin every text with the code of its language.

The mark is one token, the first or the last of a text. So a text in another language has the same tokens but for one,
and texts in several languages can be in one batch.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import tokenizers

_CODE = re.compile("[a-z]{3}_[A-Z][a-z]{3}")
"""A language and its script, as FLORES-200 writes them (NLLB Team et al., 2022, arXiv:2207.04672, table 1)."""


@dataclass(frozen=True)
class Languages:
    """The codes of the languages that a tokenizer knows, and how it marks a text with one."""

    usual: str
    """The language that a text is marked with if none is given; a code of ``ids``."""
    ids: Mapping[str, int]
    """The token of each language by its code, such as ``deu_Latn``."""
    place: Literal[0, -1]
    """Where the mark stands among the tokens of a text: first or last."""

    def marked(self, ids: tuple[int, ...], language: str) -> tuple[int, ...]:
        """The tokens ``ids`` of a text with the usual mark, special tokens included, with that of ``language`` instead.

        ``language`` is a code of ``self.ids``. Padding may follow the tokens.
        """
        # The last token of a text is the last one of its kind: a text can contain the mark as a word.
        place = 0 if self.place == 0 else len(ids) - 1 - ids[::-1].index(self.ids[self.usual])
        return (*ids[:place], self.ids[language], *ids[place + 1 :])


def languages_of(backend: tokenizers.Tokenizer) -> Languages | None:
    """The languages of a tokenizer that puts the code of one before or behind every text; None for any other."""
    added = backend.get_added_tokens_decoder()
    ids = {token.content: number for number, token in added.items() if _CODE.fullmatch(token.content)}
    empty = backend.encode("")
    special = [token for token, is_read in zip(empty.tokens, empty.attention_mask, strict=True) if is_read]
    places: tuple[Literal[0, -1], ...] = (0, -1)
    for place in places:
        if special and special[place] in ids:
            return Languages(special[place], ids, place)
    return None


def near_languages(given: str, known: Collection[str]) -> str:
    """``; did you mean …`` with the codes of ``known`` that are near ``given``, or nothing.

    The same language in another script is nearer than another language.
    """
    wanted = given.casefold().replace("-", "_")
    folded = {code.casefold(): code for code in known}
    near = [code for one, code in folded.items() if one.partition("_")[0] == wanted.partition("_")[0]]
    near = near or [folded[one] for one in get_close_matches(wanted, folded, n=3, cutoff=0.7)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
