"""The captions in one cell of a table, or in one value of JSON."""

import ast
import json
import re
from collections.abc import Sequence
from contextlib import suppress

from clip_retrieval.datasets.column_names import roles_of

_LITERAL = r"""[uU]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LITERALS = re.compile(rf"\[\s*{_LITERAL}(?:(?:\s+(?:,\s*)?|,\s*){_LITERAL})*\s*(?:,\s*)?\]", re.DOTALL)
"""Texts as Python writes them, in brackets, with a comma or white space between them."""


def texts_in(caption: object) -> Sequence[object]:
    """The captions of a cell: a text, a list as text, an object with a text (COCO's ``{"raw": …}``), a list of them.

    What is no text is given as it is.
    """
    if isinstance(caption, str) and caption.lstrip().startswith("["):
        found = _list_in(caption)
        return [caption] if found is None else found or [""]
    return [text for item in (caption if isinstance(caption, list) else [caption]) for text in _texts_of(item)]


def _texts_of(item: object) -> Sequence[object]:
    keys = roles_of([*item]).captions if isinstance(item, dict) else ()
    return [item[key] for key in keys] if isinstance(item, dict) and keys else [item]


def _list_in(text: str) -> Sequence[str] | None:
    """The texts of a list as JSON, Python or numpy writes it, which pandas does; None for any other text."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else None
    if _LITERALS.fullmatch(text.strip()) is None:
        return None
    with suppress(ValueError, SyntaxError):
        # One by one: numpy writes nothing but a space between two texts, and Python makes one text of such.
        return [ast.literal_eval(literal) for literal in re.findall(_LITERAL, text)]
    return None
