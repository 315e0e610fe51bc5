"""Text files as people have them: UTF-8 with or without a byte order mark, UTF-16, and old code pages."""

import codecs
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import BinaryIO, Protocol

from clip_retrieval.datasets.base import is_text
from clip_retrieval.datasets.code_page import Encoding, code_page_of
from clip_retrieval.datasets.utf16 import utf16_of
from clip_retrieval.errors import SourceError
from clip_retrieval.records import ImageBlob, Reject


class Text(Protocol):
    """What may be read as text: a file of a source, or bytes that were read already."""

    @property
    def name(self) -> str: ...

    def open(self) -> BinaryIO:
        """The bytes, for reading at any place. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class HeldText:
    """The bytes of a text file. A ``Text``."""

    name: str
    data: bytes

    @classmethod
    def of(cls, file: ImageBlob, limit: int) -> "HeldText":
        """The bytes of a file, which is read once. Raises ImageRejected, and ValueError if it is over the limit."""
        data = file.read(limit)
        if len(data) > limit:
            raise ValueError(f"over {limit >> 20} MiB of text")
        return cls(file.name, data)

    def open(self) -> BinaryIO:
        return BytesIO(self.data)


class NotText(SourceError):
    """A file is not text in the encoding that it is read in."""

    def __init__(self, file: Text, encoding: str, error: UnicodeError) -> None:
        self.reason = f"not text in {encoding} ({error}); try another --encoding such as utf-16-le, or leave it out"
        super().__init__(f"{file.name} is {self.reason}")


UTF8, UTF8_MARKED = "utf-8", "utf-8-sig"
_MARKS = (
    (codecs.BOM_UTF8, UTF8_MARKED),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 2**16
_LONGEST_LINE = 2**24


def encoding_of(
    file: Text, given: str | None = None, code_page: Callable[[bytes], Encoding] = code_page_of
) -> Encoding:
    """The encoding of a text file; ``given`` is what a person said it is.

    A byte order mark decides, unless ``given`` is a code page. Without one, a file that is UTF-8 but for a few bytes is
    UTF-8, so that only the rows with these bytes are rejected. Any other file has the ``code_page`` of its lines that
    are not UTF-8.
    Raises SourceError if the file cannot be read, or if Python does not know the encoding ``given``.
    """
    if given is not None:
        try:
            "caf".encode(given).decode(given, "surrogateescape")
            given = codecs.lookup(given).name
        except (LookupError, ValueError):  # also of names of codecs that encode no text
            raise SourceError(f"{given!r} is not an encoding; use a name such as utf-8, utf-16 or cp1252") from None
        if not given.startswith("utf"):
            return Encoding(given)
    try:
        with file.open() as opened:
            start = opened.read(4)
            for mark, name in _MARKS:
                if start.startswith(mark):
                    return Encoding(name)
            if given is not None:
                return Encoding(given)
            opened.seek(0)
            return _unmarked(opened, code_page)
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror}") from error


def lines_of(file: Text, encoding: str, end: str | None = None) -> Iterator[str]:
    """The lines of a text file with their ends; ``end`` is the one end that counts, None for every usual one.

    A byte that is not text becomes a lone surrogate (U+FFFD in UTF-16).

    Raises SourceError if the file cannot be read, NotText if the encoding reads nothing there.
    """
    try:
        errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
        with TextIOWrapper(file.open(), encoding=encoding, errors=errors, newline=end or "") as opened:
            yield from opened
    except UnicodeError as error:
        raise NotText(file, encoding, error) from error
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror}") from error


def captions_in(file: Text, encoding: str) -> Iterator[str | Reject]:
    """The lines of a text file that are not empty, each a caption; a Reject for a line that is not text.

    Raises as ``lines_of`` does.
    """
    for number, line in enumerate(lines_of(file, encoding), 1):
        if not is_text(line):
            yield Reject(f"{file.name} line {number}", "not UTF-8 text")
        elif text := line.strip():
            yield text


def code_page_over(files: Iterable[Text]) -> Encoding:
    """The one code page of all ``files`` that are not Unicode: together they have more text than each by itself."""
    sample = bytearray()

    def collect(lines: bytes) -> Encoding:
        sample.extend(lines + b"\n")
        return Encoding(UTF8)

    for file in files:
        with suppress(SourceError):  # said when it is read
            encoding_of(file, code_page=collect)
        if len(sample) >= _SAMPLE_BYTES:
            break
    return code_page_of(bytes(sample))


def _unmarked(file: BinaryIO, code_page: Callable[[bytes], Encoding]) -> Encoding:
    if (wide := utf16_of(file.read(_SAMPLE_BYTES))) is not None:
        return wide
    file.seek(0)
    good, bad, sample = 0, 0, bytearray()
    while line := file.readline(_LONGEST_LINE):
        if line.isascii():
            continue
        try:
            line.decode()
            good += 1
        except UnicodeDecodeError:
            bad += 1
            sample += line[: _SAMPLE_BYTES - len(sample)]
    return Encoding(UTF8) if good >= bad else code_page(bytes(sample))
