"""Collections in several files: their order, the split that a name tells, and what lies beside them unused."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import parse_split
from clip_retrieval.records import Split

_SPLIT = re.compile(r"(?:.*[-_.])??(train|training|validation|valid|val|dev|test)(?:[-_.]?\d.*)?", re.IGNORECASE)


def in_order(names: Iterable[str]) -> list[str]:
    """The names sorted so that numbers count as numbers: ``2.tar`` comes before ``10.tar``."""
    return sorted(names, key=lambda name: ([_part(part) for part in re.split(r"(\d+)", name)], name))


def _part(part: str) -> tuple[bool, int, str]:
    # Only ASCII digits: int() reads others too, but not all that isdigit() accepts.
    return (False, int(part), "") if part.isascii() and part.isdigit() else (True, 0, part)


def split_of_name(name: str) -> Split | None:
    """The split that the name of a shard tells, as Hugging Face writes it, or None.

    The name of the file decides (``train-00000-of-00002.parquet``, ``cc3m-validation-0001.tar``), else that of the
    nearest folder (``test/0000.parquet``).
    """
    path = PurePosixPath(name)
    for part in (path.name.split(".")[0], *reversed(path.parent.parts)):
        if match := _SPLIT.fullmatch(part):
            return parse_split(match[1])
    return None


def said_beside(images: int, *, has_captions: bool) -> str:
    """What to say of images beside shards that are taken; these hold more, or as many if they have captions."""
    return f"; {'no more' if has_captions else 'fewer'} images lie beside: {images}" if images else ""


def unused_files(names: Iterable[str], used: Collection[str]) -> Counter[str]:
    """How many of the files ``names`` are not in ``used``, by kind, such as ``.pdf files``."""
    return Counter(kind_of(name) for name in names if name not in used)


def kind_of(name: str) -> str:
    """The kind of a file that was not used, for people: ``.pdf files``."""
    suffix = PurePosixPath(name).suffix.lower()
    return f"{suffix} files" if suffix else "files without a suffix"
