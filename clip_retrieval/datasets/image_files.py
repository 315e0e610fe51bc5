"""Which files below a folder are images: by the suffix, and by the content where the suffix says nothing."""

from collections.abc import Iterator
from pathlib import Path

from clip_retrieval.datasets.base import IMAGE_SUFFIXES
from clip_retrieval.datasets.place import Place
from clip_retrieval.images.kinds import HEAD_BYTES, Kind, Reading, kind_of
from clip_retrieval.records import Reject

NEVER_IMAGES = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".md", ".rst", ".html", ".xml", ".yaml", ".yml", ".toml"}
    | {".ini", ".log", ".py", ".ipynb", ".parquet", ".tar", ".zip", ".gz", ".npy", ".npz", ".pt", ".safetensors"}
    | {".caption", ".captions", ".db", ".sqlite", ".xlsx", ".xls", ".ods", ".docx", ".doc"}
)
"""Files of these names are not opened to see whether they are images."""


def images_below(place: Place) -> Iterator[tuple[str, Path] | Reject]:
    """Every image below ``place`` with its relative path, in order of name, folder by folder.

    A folder that cannot be listed is a Reject, and so is a file name that is not text, and an image or a video of a
    kind that is not read.
    """
    files = place.files
    yield from place.rejects
    for shown, path in files.items():
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            yield shown, path
        elif suffix not in NEVER_IMAGES and (kind := _kind(path)) is not None:
            if kind.reading is Reading.READ:
                yield shown, path
            elif kind.is_image or kind.name.startswith("a video"):
                yield Reject(shown, kind.reason)


def _kind(path: Path) -> Kind | None:
    try:
        with path.open("rb") as file:
            return kind_of(file.read(HEAD_BYTES), path.name)
    except OSError:
        return None  # decoding would say why; a file that may not be read might be anything
