"""Texts to token ids without torch, equal to open_clip's tokenizers.

Two files in the model's folder define a tokenizer. ``tokenizer.json`` (the format of the ``tokenizers`` library) splits
a cleaned text and adds the special tokens. ``tokenizer_rules.json`` (``Rules``) holds what open_clip does before and
after that. The exporter writes both from the live open_clip tokenizer.
"""

import html
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import ftfy
import numpy as np
import tokenizers
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from clip_retrieval.encoders.base import Tokens
from clip_retrieval.encoders.languages import languages_of
from clip_retrieval.errors import ModelUnavailable

VOCABULARY_FILE = "tokenizer.json"
RULES_FILE = "tokenizer_rules.json"

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Rules(BaseModel):
    """What open_clip does around the vocabulary."""

    model_config = ConfigDict(frozen=True)

    clean: Literal["lower", "whitespace", "canonicalize"]
    """open_clip's name for the cleaning; see ``clean``."""
    context_length: int
    """Texts are cut to this number of tokens, special tokens included."""
    pad_id: int
    dropped_id: int | None = None
    """The token (the separator) that is replaced by token 0, as open_clip's ``strip_sep_token`` does."""


class Tokenizer:
    """Texts to token ids. Safe to call from several threads."""

    def __init__(self, backend: tokenizers.Tokenizer, rules: Rules) -> None:
        """Changes ``backend``: turns its padding off and sets its truncation to the rules' length."""
        self.rules = rules
        backend.no_padding()
        backend.enable_truncation(rules.context_length)
        self._backend = backend
        self.languages = languages_of(backend)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the files of ``save``. Raises ModelUnavailable if one is missing or damaged."""
        try:
            rules = Rules.model_validate_json((folder / RULES_FILE).read_bytes())
            return cls(tokenizers.Tokenizer.from_str((folder / VOCABULARY_FILE).read_text("utf-8")), rules)
        except (OSError, ValidationError) as error:
            raise ModelUnavailable(f"{folder} holds no tokenizer: a file cannot be read ({error})") from error
        except Exception as error:  # the only type that tokenizers raises for a malformed file
            raise ModelUnavailable(f"{folder / VOCABULARY_FILE} is not a tokenizer ({error})") from error

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``, which exists."""
        (folder / VOCABULARY_FILE).write_text(self._backend.to_str(), "utf-8")
        (folder / RULES_FILE).write_text(self.rules.model_dump_json(indent=2) + "\n", "utf-8")

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        """The tokens of ``text``, special tokens included, without padding; with the mark of ``language``, if given."""
        encoding = self._backend.encode(clean(text, self.rules.clean))
        ids: tuple[int, ...] = tuple(encoding.ids)
        is_cut = len(ids) >= self.rules.context_length and bool(encoding.overflowing)
        if language is not None and self.languages is not None:
            ids = self.languages.marked(ids, language)
        if (dropped := self.rules.dropped_id) is not None:
            ids = tuple(0 if token == dropped else token for token in ids)
        return Tokens(ids, is_cut)

    def pad(self, ids: Sequence[Sequence[int]], length: int | None = None) -> NDArray[np.int64]:
        """One row per text, int64, shape (n, length), padded on the right; by default to the longest text."""
        padded = np.full((len(ids), length or max(map(len, ids), default=0)), self.rules.pad_id, dtype=np.int64)
        for row, tokens in zip(padded, ids, strict=True):
            row[: len(tokens)] = tokens
        return padded


def clean(text: str, how: Literal["lower", "whitespace", "canonicalize"]) -> str:
    """Repair and normalise a text as open_clip 3.3 does before it splits the text.

    Every way repairs broken Unicode (ftfy), resolves HTML entities twice and joins the words with single spaces.
    ``lower`` also lowers the case; ``canonicalize`` lowers it and deletes ASCII punctuation.
    """
    if not _is_plain(text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    if how != "whitespace":
        text = text.lower()
    return " ".join(text.split())


def _is_plain(text: str) -> bool:
    """Whether a text is printable ASCII without entities, as most queries are: then it needs no repair."""
    return text.isascii() and text.isprintable() and "&" not in text
