"""Which column of a table is what, by the names that people give to columns.

Case, spaces, hyphens and underscores in a name make no difference. Of several names for one thing the first in the list
that the table has is taken; the other columns are metadata. Columns of captions that are numbered (``caption_1``,
``caption 2``), and columns that share one caption name, are several captions.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

IMAGE_NAMES = (
    "image_path",
    "image",
    "file_name",
    "filename",
    "image_name",
    "image_file",
    "file_path",
    "filepath",
    "file",
    "img_path",
    "img",
    "path",
    "key",
    "url",
)
ADDRESS_NAMES = frozenset({"url", "key"})
"""Those of them that may name an image elsewhere, and no file."""
CAPTION_NAMES = (
    "caption",
    "captions",
    "text",
    "title",
    "comment",
    "description",
    "sentence",
    "sentences",
    "raw",
    "txt",
)
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "image_id": ("image_id",),
    "caption_id": ("caption_id",),
    "caption_number": ("caption_number", "comment_number"),
    "split": ("split",),
    "language": ("lang", "language", "caption_lang", "caption_language"),
}
_NUMBERED = re.compile(r"(.*?)_?(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns by what they are, as the table spells them."""

    image: str | None
    captions: tuple[str, ...]
    others: Mapping[str, str]
    """``image_id``, ``caption_id``, ``caption_number``, ``split`` and ``language``, where the table has them."""

    @property
    def used(self) -> frozenset[str]:
        """Every column that is not metadata. The language of captions is metadata of their image, too."""
        others = {column for role, column in self.others.items() if role != "language"}
        return frozenset({*self.captions, *others, *([self.image] if self.image else [])})

    def by_role(self) -> dict[str, list[str]]:
        """The columns by what they are, for people."""
        one = {"image": [self.image] if self.image else [], "caption": list(self.captions)}
        return {**one, **{role: [name] for role, name in self.others.items()}}


def folded(name: str) -> str:
    """A column's name in lower case, with one underscore for each run of spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold()).strip("_")


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once: of equal names the second gets `` 2`` behind it, and so on."""
    given, own = set(names), list[str]()
    for name in names:
        free, number = name, 1
        while free in own or (number > 1 and free in given):
            number += 1
            free = f"{name} {number}"
        own.append(free)
    return tuple(own)


def roles_of(columns: Sequence[str], image: str | None = None, captions: Sequence[str] = ()) -> Roles:
    """What each of ``columns`` is. ``image`` and ``captions`` are columns that a person named; they come first.

    Raises ValueError, with the columns there are, for a named column that does not exist.
    """
    by_name: dict[str, str] = {}
    for name in columns:
        by_name.setdefault(folded(name), name)

    def given(name: str) -> str:
        if name in columns:
            return name
        if folded(name) in by_name:
            return by_name[folded(name)]
        raise ValueError(f"there is no column {name!r} (columns found: {', '.join(map(repr, columns)) or 'none'})")

    def first(names: Sequence[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    named = Roles(
        image=given(image) if image is not None else first(IMAGE_NAMES),
        captions=tuple(map(given, captions)) or _captions(columns),
        others={},
    )
    others = {role: found for role, names in OTHER_NAMES.items() if (found := first(names)) is not None}
    if others.get("language") in named.used:  # a person named that column for something else
        del others["language"]
    return replace(named, others=others)


def _captions(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of the first caption name that the table has: alone, repeated or numbered."""
    for wanted in CAPTION_NAMES:
        numbered = [(_number(folded(name), wanted), name) for name in columns]
        if found := sorted(((number, name) for number, name in numbered if number is not None), key=lambda p: p[0]):
            return tuple(name for _, name in found)
    return ()


def _number(name: str, wanted: str) -> int | None:
    """0 for the name itself, n for ``name_n`` or ``namen``, None for another name."""
    if name == wanted:
        return 0
    match = _NUMBERED.fullmatch(name)
    return int(match[2]) if match and match[1] == wanted else None
