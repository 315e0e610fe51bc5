"""Where the files of a log are: a folder for each collection, so that those of several services do not mix.

    LOG/photos-1c2d3e4f/01764337200000000000-5f3a9c2b.jsonl

A collection is known by the name of its source, which stays when it is built again. The first line of a file says it
in full. Names of files are in the order of time.
"""

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from clip_retrieval.errors import StorageFailed
from clip_retrieval.storage import storage

SUFFIX = ".jsonl"
_NAME_LENGTH = 40


def collection_folder(log: Path, collection: str) -> Path:
    """The folder of a collection's files in the folder of a log."""
    spoken = re.sub(r"[^A-Za-z0-9]+", "-", collection)[:_NAME_LENGTH].strip("-") or "collection"
    return log / f"{spoken}-{hashlib.sha256(collection.encode()).hexdigest()[:8]}"


def head_of(collection: str) -> bytes:
    """The first line of a file."""
    return json.dumps({"query_log": 1, "collection": collection}).encode() + b"\n"


def collection_of(head: bytes) -> str | None:
    """The collection that a first line names; None for another line."""
    try:
        said = json.loads(head)
    except ValueError:
        return None
    name = said.get("collection") if isinstance(said, dict) and said.get("query_log") == 1 else None
    return name if isinstance(name, str) else None


def files_of(folder: Path) -> list[Path]:
    """The files in the folder of a collection, the oldest first."""
    return [folder / name for name in sizes_of(folder)]


def sizes_of(folder: Path) -> dict[str, int]:
    """The bytes of each file by its name, the oldest first. A file that is removed meanwhile is left out."""
    sizes = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.name.endswith(SUFFIX) and entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    return dict(sorted(sizes.items()))


def make_private(folder: Path) -> None:
    """Make a folder that this user alone may read, if it is missing. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def prepare(log: Path) -> None:
    """Make the folder of a log and see that it takes files. Raises StorageFailed of the kind that applies."""
    try:
        with storage(log):
            make_private(log)
            trial = log / f".trial-{os.getpid()}"
            trial.touch(mode=0o600)
            trial.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise StorageFailed(
            f"{error.filename} is in the place of a folder for the query log; move it away, or choose another folder"
        ) from error
