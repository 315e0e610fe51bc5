"""Which files below a folder are images: by the suffix, and by the content where the suffix says nothing."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.place import Place
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.kinds import HEAD_BYTES, Kind, Reading, kind_of
from clip_retrieval.records import ImageBlob, Reject

NEVER_IMAGES = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".md", ".rst", ".html", ".xml", ".yaml", ".yml", ".toml"}
    | {".ini", ".log", ".py", ".ipynb", ".parquet", ".tar", ".zip", ".gz", ".npy", ".npz", ".pt", ".safetensors"}
    | {".caption", ".captions", ".db", ".sqlite", ".xlsx", ".xls", ".ods", ".docx", ".doc"}
)
"""Files of these names are not opened to see whether they are images."""


def images_below(place: Place) -> Iterator[StoredFile | Reject]:
    """Every image of ``place`` in order of name, folder by folder.

    An image or a video of a kind that is not read is a Reject.
    """
    for shown, file in place.files.items():
        suffix = PurePosixPath(shown).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            yield file
        elif suffix not in NEVER_IMAGES and (kind := kind_of_file(file)) is not None:
            if kind.reading is Reading.READ:
                yield file
            elif kind.is_image or kind.name.startswith("a video"):
                yield Reject(shown, kind.reason)


def count_images(place: Place) -> int:
    """How many files of ``place`` are called as images are."""
    return sum(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in place.files)


def kind_of_file(file: ImageBlob) -> Kind | None:
    """What a file is by its first bytes; None if that is not known, or if it cannot be read."""
    try:
        return kind_of(file.read(HEAD_BYTES)[:HEAD_BYTES], file.name)
    except ImageRejected:
        return None
