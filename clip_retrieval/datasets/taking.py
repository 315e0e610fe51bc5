"""What a reader took a source for: its files, what each column is, and what it did not use.

``check`` and ``build`` show this, so that a person sees at once whether the source was understood.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


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
        yield from self.notes
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
            "notes": self.notes,
        }
