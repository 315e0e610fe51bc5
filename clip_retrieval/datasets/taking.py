"""What a reader took a source for: its files, what each column is, and what it did not use.

``check`` and ``build`` show this, so that a person sees at once whether the source was understood.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from clip_retrieval.records import Scalar, field_type


@dataclass(frozen=True, slots=True)
class TakenFile:
    """A file that captions or records were read from, and how it was read."""

    name: str
    encoding: str | None = None
    separator: str | None = None
    guessed: bool = False
    """Whether other encodings fit the text nearly as well."""

    def __str__(self) -> str:
        names = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
        how = [names.get(self.separator, self.separator) if self.separator else None, self.encoding]
        said = ", ".join(part for part in how if part)
        return f"{self.name} ({said})" if said else self.name


@dataclass(slots=True)
class Taking:
    """How a source was understood. A reader fills it while it reads; it is whole after the first iteration."""

    layout: str
    """The name of the layout, such as ``csv`` or ``coco``."""
    why: str
    """Why this layout was taken, for people."""
    files: list[TakenFile] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    """The columns of the source by what they are: image, caption, split, image_id, caption_id."""
    fields: dict[str, str] = field(default_factory=dict)
    """The metadata fields by name, each with its type: number, date, boolean or text."""
    unused: Counter[str] = field(default_factory=Counter)
    """How many files of the source were not used, by kind, such as ``.pdf files``."""
    notes: list[str] = field(default_factory=list)
    """What else a person should know, one line each: what was guessed, and what was understood in a way of its own."""
    differing: Counter[str] = field(default_factory=Counter)
    """How many values of each field were left out, since an earlier row about the same image has another one."""

    inexact: dict[str, None] = field(default_factory=dict)
    """The fields that have whole numbers beyond the exact ones, as ids are; that makes them text."""

    def see(self, name: str, value: Scalar) -> None:
        """Note what a person would not expect of this value of a field."""
        if isinstance(value, int) and field_type(value) == "text":
            self.inexact[name] = None

    def joined(self, first: Mapping[str, Scalar], later: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The values of two rows about one image: the later adds only what is missing, and what differs is counted."""
        known = {name: value for name, value in first.items() if value is not None or name not in later}
        self.differing.update(
            name for name, value in later.items() if value is not None and known.get(name, value) != value
        )
        return {**later, **known}

    def lines(self) -> Iterator[str]:
        """What was taken, in two lines for people, and a line for each note."""
        files = ", ".join(map(str, self.files[:3])) + (
            f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        )
        roles = "; ".join(f"{role}: {', '.join(names)}" for role, names in self.columns.items() if names)
        yield (
            f"taken as {self.layout}: {self.why}"
            + (f"; read {files}" if files else "")
            + (f"; {roles}" if roles else "")
        )
        fields = ", ".join(f"{name} ({kind})" for name, kind in self.fields.items()) or "none"
        unused = ", ".join(f"{count} {kind}" for kind, count in self.unused.most_common()) or "none"
        yield f"fields: {fields}; files not used: {unused}"
        yield from self._all_notes()
        if guessed := [file.name for file in self.files if file.guessed]:
            names = ", ".join(guessed[:3])
            yield f"the encoding of {names} is a guess: if the captions look wrong, name it with --encoding"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        files = [asdict(one) for one in self.files]
        return {
            "layout": self.layout,
            "why": self.why,
            "files": files,
            "columns": self.columns,
            "fields": self.fields,
            "unused": dict(self.unused),
            "notes": [*self._all_notes()],
        }

    def _all_notes(self) -> Iterator[str]:
        yield from self.notes
        if self.inexact:
            names = ", ".join(self.inexact)
            yield f"text because of whole numbers beyond 2^53, so that > and < compare these fields as text: {names}"
        if self.differing:
            counts = ", ".join(f"{name} ({count})" for name, count in self.differing.most_common())
            yield f"later rows about one image have other values, which are left out: {counts}"
