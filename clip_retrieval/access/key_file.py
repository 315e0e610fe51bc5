"""The file of the API keys. It is written whole, under another name, and renamed: a reader never sees a part of it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from clip_retrieval.access.keys import ApiKey, keys_of, lines_of
from clip_retrieval.atomic import locked, new_file
from clip_retrieval.errors import KeysError

MODE = 0o600
MAX_BYTES = 2**20
"""Some 4,000 keys; a larger file is another one."""


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys in a file. Raises KeysError if it cannot be read, is not such a file, or may be written by others."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeysError(f"the API keys cannot be read from {path} ({error.strerror})") from error
    if not stat.S_ISREG(about.st_mode):
        raise KeysError(f"{path} is no file; the API keys are one file")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeysError(f"other users may write {path}, and so give themselves a key: chmod 600 {path}")
    if len(content) > MAX_BYTES:
        raise KeysError(f"{path} has more than {MAX_BYTES} bytes; it is no file of API keys")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise KeysError(f"{path} is no file of API keys: it is not text") from error
    return keys_of(text, str(path))


def change_keys(path: Path, change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> None:
    """Write what ``change`` makes of the keys in a file; a file that does not exist has none, and is made.

    Two changes at the same time come one after the other. Raises KeysError as ``read_keys`` does, what ``change``
    raises, and OSError if the file cannot be written; it is as before then.
    """
    path = Path(os.path.realpath(path))  # a link to the file stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        keys = change(read_keys(path) if os.path.lexists(path) else ())
        with new_file(path, replace=True) as file:
            os.fchmod(file.fileno(), MODE)
            file.write(lines_of(keys).encode())
