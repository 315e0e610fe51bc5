"""What the files beside an image say: text, each line a caption, and JSON.

In JSON the keys that are called as columns of captions are have the captions, the other keys are fields. A text that
is a name of an image is no caption (Google Takeout's ``title``).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import Roles, folded
from clip_retrieval.datasets.img2dataset_status import bookkeeping
from clip_retrieval.datasets.json_values import reason_of, values_of
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.row_roles import roles_by_row
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile, Taking
from clip_retrieval.datasets.text_file import captions_in, code_page_over, encoding_of
from clip_retrieval.errors import ImageRejected, SourceError
from clip_retrieval.records import Reject

_JSON_BYTES = 2**24
_LONGEST_FIELD = 10_000
"""Characters of a field. Tools write whole pages beside an image: what formats a video has, or the image in base64."""
_UNREADABLE = (ImageRejected, SourceError, ValueError, RecursionError)
"""What a JSON file raises that cannot be read."""


@dataclass
class SidecarReader:
    """Reads the files beside images, and keeps how."""

    options: SourceOptions
    texts: Callable[[], Iterable[StoredFile]]
    """All text files, which have one code page if they are not Unicode."""
    read: Counter[tuple[str, Encoding]] = field(default_factory=Counter)
    """How many files were read, by kind and encoding."""
    captions: dict[str, str] = field(default_factory=dict)
    """What had captions, as a person may name it, and for people."""
    too_long: Counter[str] = field(default_factory=Counter)
    """How many values are too long for a field, by name."""

    def wants(self, file: StoredFile) -> bool:
        """Whether a text file has captions: not if a person named other columns than its suffix."""
        return not self.options.caption_columns or _suffix(file) in map(folded, self.options.caption_columns)

    def has_caption(self, file: StoredFile) -> bool:
        """Whether a JSON file has a caption."""
        try:
            _, values = values_of(file, _JSON_BYTES, self.options.encoding)
        except _UNREADABLE:
            return False
        return bool(self._roles_of(values).captions)

    def add_lines(self, file: StoredFile, lines: list[str]) -> Iterator[Reject]:
        """Add the lines of a text file that are not empty; a Reject for what is not text."""
        try:
            encoding = encoding_of(file, self.options.encoding, lambda _: self._code_page)
            found = list(captions_in(file, encoding.name))
        except SourceError as error:
            yield Reject(file.name, str(error).removeprefix(f"{file.name} "))
            return
        self.read["text files", encoding] += 1
        self.captions[_suffix(file)] = "each line of a text file"
        for line in found:
            if isinstance(line, Reject):
                yield line
            else:
                lines.append(line)

    @cached_property
    def _code_page(self) -> Encoding:
        return code_page_over(self.texts())

    def add_values(self, file: StoredFile, values: dict[str, object]) -> Iterator[Reject]:
        """Add the values of a JSON file that are not known yet; a Reject if it cannot be read."""
        try:
            encoding, found = values_of(file, _JSON_BYTES, self.options.encoding)
        except _UNREADABLE as error:
            yield Reject(file.name, reason_of(error))
            return
        self.read["JSON files", encoding] += 1
        values.update({name: value for name, value in found.items() if value != "" and name not in values})

    def roles_in(self, values: dict[str, object]) -> Roles:
        """What the keys are. Removes what is no field: img2dataset's status, and what is too long, which is counted."""
        roles = self._roles_of(values)
        self.captions.update({folded(name): name for name in roles.captions})
        for name in bookkeeping(values) - roles.used:
            values.pop(name, None)
        for name in [name for name, value in values.items() if name not in roles.used and _is_too_long(value)]:
            del values[name]
            self.too_long[name] += 1
        return roles

    def _roles_of(self, values: Mapping[str, object]) -> Roles:
        """What each key is: captions, their language, the split, and fields.

        The image has its name, whatever the JSON calls it.
        """
        texts = {name: value for name, value in values.items() if not _is_name(value) and value not in ("", [])}
        roles = self._roles_by_keys(texts)
        others = {role: name for role, name in roles.others.items() if role in {"split", "language"}}
        return Roles(None, roles.captions, others)

    @cached_property
    def _roles_by_keys(self) -> Callable[[Mapping[str, object]], Roles]:
        return roles_by_row(replace(self.options, image_column=None))

    def tell(self, taking: Taking) -> None:
        """Put into ``taking`` what was read. Raises SourceError if a person named a column that no file had."""
        if missing := [name for name in self.options.caption_columns if folded(name) not in self.captions]:
            found = ", ".join(map(repr, taking.fields)) or "none"
            raise SourceError(
                f"no file beside an image has {', '.join(map(repr, missing))}: name a key of the JSON, or the suffix of"
                f" text files (keys found: {found})"
            )
        taking.files = [
            TakenFile(f"{count} {kind}", encoding.name, guessed=not encoding.sure)
            for (kind, encoding), count in self.read.items()
        ]
        taking.columns = {"caption": list(dict.fromkeys(self.captions.values()))}
        if not self.captions and self.read:
            taking.notes.append("no key of the JSON is called as captions are: use --caption-column if one has them")
        if self.too_long:
            names = ", ".join(f"{name} ({count})" for name, count in self.too_long.most_common())
            taking.notes.append(f"longer than {_LONGEST_FIELD:,} characters and left out: {names}")


def _suffix(file: StoredFile) -> str:
    return PurePosixPath(file.name).suffix.lower().removeprefix(".")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and PurePosixPath(value.strip()).suffix.lower() in IMAGE_SUFFIXES


def _is_too_long(value: object) -> bool:
    if isinstance(value, list | dict):
        with suppress(RecursionError):  # then it is a reject
            return len(json.dumps(value, ensure_ascii=False)) > _LONGEST_FIELD
    return isinstance(value, str) and len(value) > _LONGEST_FIELD
