"""A JSON Lines file: one object per line, each an image with its captions."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import Roles
from clip_retrieval.datasets.list_file import NotAList
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.row_roles import columns_in, roles_by_row
from clip_retrieval.datasets.rows import Row, row_of
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.datasets.text_file import encoding_of, lines_of
from clip_retrieval.records import Reject


@dataclass(frozen=True)
class JsonLines:
    """A JSON Lines file that was understood. A ``ListFile``."""

    file: StoredFile
    encoding: Encoding
    options: SourceOptions
    roles: Roles
    """Of the columns that the first lines have together, and the first with captions."""
    names: tuple[str, ...]
    layout: str = "jsonl"

    @property
    def has_captions(self) -> bool:
        return bool(self.roles.captions)

    @property
    def columns(self) -> dict[str, list[str]]:
        return self.roles.by_role()

    def taken(self) -> TakenFile:
        return TakenFile(self.file.name, self.encoding.name, guessed=not self.encoding.sure)

    def rows(self) -> Iterator[Row | Reject]:
        roles = roles_by_row(self.options)
        for number, line in enumerate(lines_of(self.file, self.encoding.name, "\n"), 1):
            where = f"{self.file.name} line {number}"
            try:
                if text := line.strip():
                    values = json_object(text)
                    yield row_of(where, values, roles(values))
            except (ValueError, RecursionError) as error:
                yield Reject(where, reason_of(error), may_hide=True)


def understand(file: StoredFile, options: SourceOptions) -> JsonLines:
    """The file in ``file``. Raises NotAList with what was seen, and SourceError if the file cannot be read."""
    encoding = encoding_of(file, options.encoding)
    columns = columns_in(_objects(file, encoding.name), options)
    roles = roles_by_row(options)(columns)
    if roles.image is None and columns:
        found = ", ".join(map(repr, columns))
        raise NotAList(f"no key for the image: call it image or file_name, or use --image-column (keys found: {found})")
    return JsonLines(file, encoding, options, roles, tuple(columns))


def _objects(file: StoredFile, encoding: str) -> Iterator[dict[str, object]]:
    """The objects of the lines that are one; the others become a Reject when the rows are read."""
    for line in lines_of(file, encoding, "\n"):
        with suppress(ValueError, RecursionError):
            if text := line.strip():
                yield json_object(text)


def json_object(text: str) -> dict[str, object]:
    """One object in JSON. Raises ValueError with the reason, also for NaN and infinity."""
    value = json.loads(text, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def reason_of(error: Exception) -> str:
    """Why a text is not JSON, for people."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return str(error)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
