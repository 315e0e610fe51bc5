"""``--where``: one or more filters, which become one tree."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import typer

from clip_retrieval.contract.filter_language import FilterError, Tree, is_simple, parse_filter

HINT = "--where"

WhereOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        HINT,
        metavar="FILTER",
        help="A filter such as 'year >= 2020 and (place = \"New York\" or not tags contains sea)': = != > >= < <= "
        "~ (contains), in (a, b), is null, before, after, during a date, and, or, not. Repeat it to demand all; "
        "repeat field=value to allow other values.",
    ),
]

_NO_VALUE = re.compile(r"\s*([^=<>~!\"'()]*[^=<>~!\"'()\s])\s*=\s*")
"""A field and the sign alone: images without a value."""


def conditions(given: Sequence[str]) -> Tree | None:
    """All filters as one tree, or None without any. Several ``field=value`` of one field are alternatives."""
    tree: Tree = {}
    rest: list[Tree] = []
    others: list[tuple[str, Any, str]] = []
    for text in given:
        part = _tree(text)
        if not is_simple(part):
            rest.append(part)
            continue
        [(field, wanted)] = part.items()
        if isinstance(wanted, dict):
            others.append((field, wanted, text))
        else:
            tree.setdefault(field, {"in": []})["in"].append(wanted)
    for field, wanted, text in others:
        known = tree.setdefault(field, {})
        if known.keys() & wanted:
            raise typer.BadParameter(f"{text}: give this condition on {field} once", param_hint=HINT)
        known |= wanted
    if rest:
        tree = {"and": [tree, *rest]} if tree else rest[0] if len(rest) == 1 else {"and": rest}
    return tree or None


def _tree(text: str) -> Tree:
    if found := _NO_VALUE.fullmatch(text):
        return {found[1]: None}
    try:
        return parse_filter(text)
    except FilterError as error:
        mark = " " * error.position + "^"
        raise typer.BadParameter(f"{error}\n{text}\n{mark}", param_hint=HINT) from None
