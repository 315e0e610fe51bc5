"""Images listed in a JSON Lines file, such as ``captions.jsonl``; ``rows.py`` lists its fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NoReturn

from clip_retrieval.datasets.base import FolderSource
from clip_retrieval.datasets.rows import Row, column, images_of_rows
from clip_retrieval.errors import SourceError
from clip_retrieval.records import CaptionedImage, Reject


class JsonLines(FolderSource):
    """A .jsonl file in UTF-8, one object per line; image names are relative to its folder."""

    name: ClassVar[str] = "jsonl"

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self.path = path

    def read(self) -> Iterator[CaptionedImage | Reject]:
        return images_of_rows(_rows(self.path), self.root)


def _rows(path: Path) -> Iterator[Row | Reject]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{path.name} line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    if text:
                        yield Row(where, _json_object(text))
                except (ValueError, RecursionError) as error:
                    yield Reject(where, _reason(error))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _json_object(text: str) -> dict[str, object]:
    value = json.loads(text, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return {column(name): item for name, item in value.items()}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return str(error)
