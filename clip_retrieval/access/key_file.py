"""The file of the API keys. It is written whole, under another name, and renamed: a reader never sees a part of it."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
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

    A file that is there keeps its mode, and its owner if this process may give it to them: a service of another user
    must go on reading it. Two changes at the same time come one after the other. Raises KeysError as ``read_keys`` does
    and for a file that would be too large, what ``change`` raises, and OSError if the file cannot be written; it is as
    before then.
    """
    path = Path(os.path.realpath(path))  # a link to the file stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        kept = read_keys(path) if os.path.lexists(path) else None
        content = lines_of(change(kept or ())).encode()
        if len(content) > MAX_BYTES:
            raise KeysError(
                f"{path} would have {len(content)} bytes, and a file of API keys has at most {MAX_BYTES}; first revoke "
                "keys that are not used any more"
            )
        with new_file(path, replace=True) as file:
            os.fchmod(file.fileno(), MODE)
            if kept is not None:
                _keep_readers(file.fileno(), path.stat())
            file.write(content)


def _keep_readers(descriptor: int, about: os.stat_result) -> None:
    """Let those read the new file who could read the one before."""
    for owner in (about.st_uid, -1):  # -1 leaves it
        with suppress(OSError):
            os.fchown(descriptor, owner, about.st_gid)
            break
    os.fchmod(descriptor, stat.S_IMODE(about.st_mode))
