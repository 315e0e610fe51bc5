"""The names that a request may use: a name that there is not is refused, and the one that may be meant is said."""

from collections.abc import Collection
from difflib import get_close_matches
from urllib.parse import parse_qsl

MAX_SHOWN = 60
"""Characters of a name that are shown."""


def check_parameters(query: bytes, known: Collection[str]) -> None:
    """Raises ValueError for a query parameter that is not among ``known``, or that is given twice."""
    seen: set[str] = set()
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            raise ValueError(unknown("query parameter", name, known))
        if name in seen:
            raise ValueError(f"{name}: one is enough, and the query has several")
        seen.add(name)


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """A sentence that there is no such name, and which there are."""
    shown = name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}…"
    names = sorted(known)
    if not names:
        return f"there is no {kind} {shown}; this path reads none"
    part = [one for one in names if one in name.lower().replace("-", "_").split("_")]  # top_k is k
    near = get_close_matches(name.lower(), names, n=1) or part
    meant = f"did you mean {near[0]}? " if near else ""
    return f"there is no {kind} {shown}; {meant}this path reads {', '.join(names)}"
