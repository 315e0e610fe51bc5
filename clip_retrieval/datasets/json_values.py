"""The values that a JSON file has about one image: in a tar, or beside the image."""

import json
from collections.abc import Mapping, Sequence

from clip_retrieval.datasets.code_page import Encoding
from clip_retrieval.datasets.column_names import Roles, roles_of
from clip_retrieval.datasets.text_file import HeldText, NotText, encoding_of
from clip_retrieval.records import ImageBlob


def values_of(file: ImageBlob, limit: int, given: str | None = None) -> tuple[Encoding, Mapping[str, object]]:
    """The encoding of a JSON file of at most ``limit`` bytes, and what ``values_in`` finds there.

    UTF-8 and UTF-16 need no ``given`` encoding. Raises ImageRejected, SourceError, ValueError and RecursionError.
    """
    held = HeldText.of(file, limit)
    encoding = Encoding(json.detect_encoding(held.data))
    try:
        text = held.data.decode(encoding.name)
    except UnicodeDecodeError:
        encoding = encoding_of(held, given)
        text = held.data.decode(encoding.name)
    return encoding, values_in(text)


def values_in(text: str) -> Mapping[str, object]:
    """The keys of an object with their values; a text, or a list of captions, is what ``captions`` has.

    Raises ValueError for anything else, and RecursionError.
    """
    content = json.loads(text.removeprefix("\ufeff"))
    match content:
        case dict():
            return content
        case str():
            return {"captions": content}
        case list() if content and all(map(_may_be_caption, content)):
            return {"captions": content}
        case _:
            raise ValueError("the JSON is neither an object nor captions")


def _may_be_caption(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, dict) and bool(roles_of([*item]).captions))


def reason_of(error: Exception) -> str:
    """Why a file of texts or values cannot be used, for people."""
    if isinstance(error, NotText):
        return error.reason
    if isinstance(error, UnicodeDecodeError):
        return f"not {error.encoding.upper()} text"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    return "the JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)


def not_repeated(lines: Sequence[str], values: Mapping[str, object], roles: Roles) -> Sequence[str]:
    """``lines`` of a text file, none if the JSON has them as one caption with its line breaks."""
    whole = {_words(text) for name in roles.captions if isinstance(text := values[name], str)}
    return () if _words(" ".join(lines)) in whole else lines


def _words(text: str) -> str:
    return " ".join(text.split())
