"""Filters as a person writes them: the text of a ``where``, and the tree that it means.

    year >= 2020 and (place = "New York" or not tags contains sea) and taken during 2024-05

    filter     = and_filter { "or" and_filter }
    and_filter = not_filter { "and" not_filter }
    not_filter = "not" not_filter | "(" filter ")" | condition
    condition  = field ( "=" | "!=" | ">" | ">=" | "<" | "<=" | "~" ) value
               | field [ "not" ] ( "contains" | "before" | "after" | "during" ) value
               | field [ "not" ] "in" "(" value { "," value } ")"
               | field "is" [ "not" ] "null"

A field is one or more words, or a text in quotes; a value is that too, and ends at ``and`` or ``or``. A quote in quotes
is written ``\\"``. Keywords may have any case. ``null`` without quotes stands for no value. Values are texts: the field
takes them in its own type. The tree is that of ``conditions.py``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from clip_retrieval.contract.iso_dates import FORMS, period_of

MAX_FILTER_TEXT = 10_000
"""Characters of a filter."""
MAX_CONDITIONS = 16
"""Entries of one object."""
MAX_NESTED = 8
"""Brackets and ``not`` inside each other."""

Tree: TypeAlias = dict[str, Any]

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<sign>>=|<=|!=|==|[=><~(),])|(?P<word>[^\s"'()<>=!~,][^\s"()<>=!~,]*))""",
    re.DOTALL,
)
_SIGNS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "~": "contains"}
_WORDS = ("contains", "before", "after", "during")
_DATES = ("before", "after", "during")
_EXAMPLE = "a condition is a field, an operator and a value, such as year >= 2020"


class FilterError(ValueError):
    """A text that is no filter; the message says at which character, counted from 1."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"position {position + 1}: {reason}")
        self.position = position
        """The place of the character, counted from 0."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """``quoted``, ``sign``, ``word``, or ``end``."""
    text: str
    start: int
    end: int

    @property
    def keyword(self) -> str:
        """The word in lower case, or the sign; empty for a text in quotes, which is no keyword."""
        return "" if self.kind == "quoted" else self.text.lower()


def parse_filter(text: str) -> Tree:
    """The tree that ``text`` means. Raises FilterError."""
    if len(text) > MAX_FILTER_TEXT:
        raise FilterError(MAX_FILTER_TEXT, f"the filter has more than {MAX_FILTER_TEXT:,} characters")
    reader = _Reader(text, _tokens(text))
    tree = reader.filter(0)
    reader.expect_end()
    return tree


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    end = len(text.rstrip())
    while place < end:
        found = _TOKEN.match(text, place)
        if found is None:
            place += len(text[place:]) - len(text[place:].lstrip())
            if text[place] in "\"'":
                raise FilterError(place, f"the quote {text[place]} is not closed")
            raise FilterError(place, f"{text[place]} is no operator; the operators are = != > >= < <= ~ in contains")
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind), found.end()))
        place = found.end()
    return [*tokens, _Token("end", "", len(text), len(text))]


class _Reader:
    """Reads the tokens from left to right, one function for each rule of the grammar."""

    def __init__(self, text: str, tokens: Sequence[_Token]) -> None:
        self._text, self._tokens, self._place = text, tokens, 0

    def filter(self, nested: int) -> Tree:
        return self._joined("or", lambda: self._joined("and", lambda: self._not_filter(nested), _all_of), _any_of)

    def expect_end(self) -> None:
        if self._next.kind != "end":
            raise self._wrong(self._next, f"{self._next.text} is not expected here; join conditions by and, or")

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._next
        self._place += token.kind != "end"
        return token

    def _takes(self, *keywords: str) -> _Token | None:
        return self._take() if self._next.keyword in keywords and self._next.kind != "end" else None

    def _joined(self, word: str, part: Callable[[], Tree], join: Callable[[list[Tree]], Tree]) -> Tree:
        parts = [part()]
        while self._takes(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else join(parts)

    def _not_filter(self, nested: int) -> Tree:
        start = self._next
        if nested > MAX_NESTED:
            raise self._wrong(start, f"more than {MAX_NESTED} brackets and nots are inside each other")
        if self._takes("not"):
            return {"not": [self._not_filter(nested + 1)]}
        if self._takes("("):
            inner = self.filter(nested + 1)
            if not self._takes(")"):
                raise self._wrong(self._next, f"the bracket of position {start.start + 1} is not closed")
            return inner
        return self._condition()

    def _condition(self) -> Tree:
        field = self._words("a condition is missing", {"and", "or", "not", "is", "in", *_WORDS})
        operator = self._take()
        word = operator.keyword
        is_not = False
        if word == "not":
            is_not, operator = True, self._take()
            word = operator.keyword
            if word not in {"in", *_WORDS}:
                raise self._wrong(operator, "in, contains, before, after or during must follow not")
        if word == "is":
            is_not = self._takes("not") is not None
            if not self._takes("null"):
                raise self._wrong(self._next, "null or not null must follow is")
            return _unless(is_not, {field: None})
        if word == "in":
            return _unless(is_not, {field: {"in": self._choices()}})
        if word in {"=", "==", "!="}:
            return _unless(word == "!=", {field: self._value(operator)})
        if word in _SIGNS or word in _WORDS:
            return _unless(is_not, {field: {_SIGNS.get(word, word): self._operand(operator)}})
        found = repr(operator.text) if operator.text else "the end"
        hint = "; a value that has and or or in it stands in quotes" if self._place > 2 else ""
        raise self._wrong(operator, f"an operator must follow {field}, not {found}; {_EXAMPLE}{hint}")

    def _choices(self) -> list[str | None]:
        opening = self._next
        if not self._takes("("):
            raise self._wrong(opening, "in needs its values in brackets: in (Oslo, Rome)")
        choices = [self._value(opening)]
        while comma := self._takes(","):
            choices.append(self._value(comma))
        if not self._takes(")"):
            raise self._wrong(self._next, f"the bracket of position {opening.start + 1} is not closed")
        return choices

    def _operand(self, operator: _Token) -> str:
        start = self._next
        value = self._value(operator)
        if value is None:
            raise self._wrong(start, f"null cannot follow {operator.text}; write is null")
        if operator.keyword in _DATES and period_of(value) is None:
            raise self._wrong(start, f"{value} is no date; write {FORMS}")
        return value

    def _value(self, before: _Token) -> str | None:
        start = self._next
        value = self._words(f"a value must follow {before.text}", {"and", "or"})
        return None if start.kind == "word" and value.lower() == "null" else value

    def _words(self, missing: str, ends: set[str]) -> str:
        """A text in quotes, or the words up to the next sign or one of ``ends``, as they are written."""
        first = self._next
        if first.kind == "quoted":
            return re.sub(r"\\(.)", r"\1", self._take().text[1:-1], flags=re.DOTALL)
        last = None
        while self._next.kind == "word" and self._next.keyword not in ends:
            last = self._take()
        if last is None:
            shown = f", not {first.text}" if first.text else ""
            raise self._wrong(first, f"{missing}{shown}; {_EXAMPLE}")
        return self._text[first.start : last.end]

    def _wrong(self, token: _Token, reason: str) -> FilterError:
        return FilterError(token.start, reason)


def _unless(is_not: bool, tree: Tree) -> Tree:
    return {"not": [tree]} if is_not else tree


def _any_of(parts: list[Tree]) -> Tree:
    return {"or": parts}


def _all_of(parts: list[Tree]) -> Tree:
    """One mapping of conditions where each names a field of its own."""
    flat: Tree = {}
    for part in parts:
        if any(name in flat or isinstance(wanted, list) for name, wanted in part.items()):
            return {"and": parts}
        flat |= part
    return flat if len(flat) <= MAX_CONDITIONS else {"and": parts}


def is_simple(tree: Mapping[str, Any]) -> bool:
    """Whether a tree of ``parse_filter`` is one condition on one field."""
    return len(tree) == 1 and not isinstance(next(iter(tree.values())), list)
