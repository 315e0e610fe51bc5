"""Which files may be tables, by their names and their beginnings, and how a file is read as one."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePosixPath

from clip_retrieval.datasets import csv_table, json_document, jsonl
from clip_retrieval.datasets.base import parse_split
from clip_retrieval.datasets.column_names import folded
from clip_retrieval.datasets.list_file import AnotherKind, ListFile, NotAList
from clip_retrieval.datasets.other_kinds import may_be_json, other_kind
from clip_retrieval.datasets.place import SourceOptions
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.text_file import NotText
from clip_retrieval.errors import ImageRejected
from clip_retrieval.records import Split

READERS: Mapping[str, Callable[[StoredFile, SourceOptions], ListFile]] = {
    ".csv": csv_table.understand,
    ".tsv": csv_table.understand,
    ".tab": csv_table.understand,
    ".psv": csv_table.understand,
    ".txt": csv_table.understand,
    ".jsonl": jsonl.understand,
    ".ndjson": jsonl.understand,
    ".json": json_document.understand,
}
"""How a file is read, by its suffix."""
STEMS = ("captions", "metadata", "results", "annotations", "labels", "dataset", "data")
"""Names of tables, from the one that is taken first."""
HIDDEN_TABLE = "a table in a folder below; put it at the top, call it captions, or give the file"
FOLDERS = frozenset({"annotations", "captions", "labels", "data", "metadata"})
"""Folders that tables lie in, beside the images."""
MENTION = re.compile(rb"\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic)\b", re.IGNORECASE)
_SAMPLE_BYTES = 2**16


def understood(file: StoredFile, options: SourceOptions) -> ListFile:
    """The list in a file, by its suffix, and by its content where the suffix cannot be right.

    Raises NotAList with what was seen, and SourceError if the file cannot be read.
    """
    if (kind := other_kind(file)) is not None:
        raise AnotherKind(f"it is {kind}")
    try:
        found = READERS[PurePosixPath(file.name).suffix.lower()](file, options)
    except NotText as error:
        raise NotAList(error.reason) from error
    except NotAList:
        if (other := _by_content(file, options)) is None:
            raise
        return other
    return found if found.names else _by_content(file, options) or found


def _by_content(file: StoredFile, options: SourceOptions) -> ListFile | None:
    """A list in JSON whatever the suffix: JSON Lines in a ``.json`` or ``.txt``, one document in a ``.jsonl``."""
    if not may_be_json(file):
        return None
    for understand in (jsonl.understand, json_document.understand):
        with suppress(NotAList, NotText):
            if (found := understand(file, options)).names:
                return found
    return None


def stem_of(shown: str) -> str:
    """The name of a file without its suffix, folded as columns are."""
    return folded(PurePosixPath(shown).stem)


def may_be_a_table(shown: str) -> bool:
    """Whether a file lies and is called as tables are: at the top, in a folder of annotations, or with a known name."""
    path = PurePosixPath(shown)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        return False
    anywhere = is_metadata(shown) or (stem_of(shown) == "captions" and suffix != ".txt")
    if not anywhere and (len(path.parts) > 2 or (len(path.parts) == 2 and folded(path.parts[0]) not in FOLDERS)):
        return False
    return suffix != ".txt" or folded(path.stem) in STEMS or split_of(shown) is not None


def may_be_hidden_table(shown: str, file: StoredFile) -> bool:
    """Whether a file that lies too deep to be taken as a table looks like one."""
    suffix = PurePosixPath(shown).suffix.lower()
    return (
        suffix in READERS.keys() - {".txt", ".json"} and not may_be_a_table(shown) and looks_like_captions(shown, file)
    )


def is_metadata(shown: str) -> bool:
    """Whether this is the file that Hugging Face reads beside images, in any folder."""
    return stem_of(shown) == "metadata" and not shown.lower().endswith(".txt")


def looks_like_captions(shown: str, file: StoredFile) -> bool:
    """Whether a file is called as captions are, or mentions names of images at its beginning."""
    words = ["caption", "label", "annotation"]
    if not shown.lower().endswith(".json"):  # metadata.json may be anything: Google Takeout's tells the album's title
        words.append("metadata")
    if any(word in stem_of(shown) for word in words):
        return True
    try:
        return MENTION.search(file.read(_SAMPLE_BYTES).replace(b"\0", b"")) is not None
    except ImageRejected:
        return False


def split_of(shown: str) -> Split | None:
    """The split that the name of a table says: ``train.csv``, ``captions_val2017.json``, ``test/metadata.jsonl``."""
    path = PurePosixPath(shown)
    words = [folded(path.stem).rsplit("_", 1)[-1]]
    if len(path.parts) > 1:
        words.append(folded(path.parts[-2]))
    for word in words:
        try:
            return parse_split(word)
        except ValueError:
            continue
    return None
