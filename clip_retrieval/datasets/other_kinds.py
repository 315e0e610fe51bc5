"""Files that are called a table or a list and are something else, by their first bytes.

A workbook under the name ``.csv``, a page of a web server that was saved in place of the file, an archive: each is
named for what it is, with what to do.
"""

import re
from zipfile import BadZipFile, ZipFile

from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected

_HEAD_BYTES = 4096
_WORKBOOK = "in a spreadsheet program and save it as CSV"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\5\6", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0", f"an Excel workbook (.xls); open it {_WORKBOOK}"),
    (b"\x1f\x8b", "compressed by gzip; unpack it with gunzip first"),
    (b"BZh", "compressed by bzip2; unpack it with bunzip2 first"),
    (b"\xfd7zXZ\0", "compressed by xz; unpack it with unxz first"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it with zstd --decompress first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"SQLite format 3\0", "an SQLite database; export the table as CSV"),
    (b"PAR1", "a Parquet file; give it the ending .parquet"),
    (b"ARROW1", "an Arrow file; save it as Parquet or CSV"),
    (b"%PDF-", "a PDF document; save the table as CSV"),
    (b"{\\rtf", "a document in RTF; save it as plain text"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS and not the file itself; run git lfs pull"),
)
_TEXTS = (
    (
        re.compile(rb"<!doctype\s+html|<html[\s>]|<head[\s>]", re.IGNORECASE),
        "an HTML page, as a server sends it for a login or an error; download the file itself",
    ),
    (re.compile(rb"<\?xml|<table[\s>]", re.IGNORECASE), f"an XML document; open it {_WORKBOOK}"),
)
_IN_ZIP = (
    ("xl", f"an Excel workbook (.xlsx); open it {_WORKBOOK}"),
    ("word", "a Word document; save its text as CSV"),
    ("Index", f"a document of Numbers; open it {_WORKBOOK}"),
    ("content.xml", f"an OpenDocument spreadsheet (.ods) or text; open it {_WORKBOOK}"),
)
"""What is at the top of archives that office programs write."""
_BLANK = b"\xef\xbb\xbf\xff\xfe \t\r\n"


def other_kind(file: StoredFile) -> str | None:
    """What a file is, and what to do, if it is neither a text table nor JSON; None if it may be one of these.

    None too for a file that cannot be read: its reader says that.
    """
    head = _head(file)
    if head.startswith(b"PK\3\4"):
        return _zip(file)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return next((kind for pattern, kind in _TEXTS if pattern.match(_text_of(head))), None)


def may_be_json(file: StoredFile) -> bool:
    """Whether a file begins as an object or a list in JSON does, in any encoding."""
    return _text_of(_head(file)).startswith((b"{", b"["))


def _head(file: StoredFile) -> bytes:
    try:
        return file.part(0, _HEAD_BYTES)
    except ImageRejected:
        return b""


def _text_of(head: bytes) -> bytes:
    """The ASCII of a text from its first character on, in UTF-8, UTF-16 or a code page."""
    return head.replace(b"\0", b"").lstrip(_BLANK)


def _zip(file: StoredFile) -> str:
    """What a ZIP archive is, by the names in it."""
    try:
        with file.open() as opened, ZipFile(opened) as archive:
            names = archive.namelist()
    except (OSError, BadZipFile, ValueError, NotImplementedError):
        return "a damaged ZIP archive"
    tops = {name.split("/", 1)[0] for name in names}
    return next((kind for top, kind in _IN_ZIP if top in tops), "a ZIP archive; unpack it first")
