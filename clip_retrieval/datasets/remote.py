"""Sources in stores: ``s3://``, ``gs://``, ``hf://`` and single files by ``https://``.

The readers are those of local sources. They find the files of a store in a ``Place``, and read parts of them.
"""

import os
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from clip_retrieval.datasets.base import Source, is_text
from clip_retrieval.datasets.place import Place, SourceOptions
from clip_retrieval.datasets.remote_file import Reading, RemoteFile
from clip_retrieval.datasets.store import Listing, Objects, Store
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import MissingExtra, SourceError
from clip_retrieval.records import Reject
from clip_retrieval.urls import BUCKETS, shown_place

SCHEMES = ("s3", "gs", "hf", "https", "http")


Detect = Callable[[Place, SourceOptions], Source]
"""Finds the reader that fits a place. Raises SourceError if none does."""


@dataclass(frozen=True)
class RemotePlace(Place):
    """What lies at a URL. ``path`` ends in its last name, below a file of this machine, where nothing can exist."""

    url: str = field(kw_only=True)
    reading: Reading = field(kw_only=True)
    listing: Listing = field(kw_only=True)

    @property
    def root(self) -> Path:
        return self.path if self.only is None else self.path.parent

    @property
    def shown(self) -> str:
        return self.url

    @property
    def only(self) -> str | None:
        return self.listing.only

    @cached_property
    def files(self) -> Mapping[str, StoredFile]:
        """Every file that is not hidden or was named, by its name relative to the URL, in order."""
        found: dict[str, StoredFile] = {}
        for name, (path, size) in sorted(self.listing.files.items()):
            if not is_text(name):
                self.rejects.append(Reject(ascii(name)[1:-1], "the file name is not UTF-8 text"))
            elif name == self.only or not any(part.startswith(".") for part in name.split("/")):
                found[name] = RemoteFile(self.reading, name, path, size)
        return found

    def elsewhere(self, folder: str, name: str) -> StoredFile:
        """A file that is not in the store: a table of a store names no files of this machine."""
        name = name.strip()
        if not name or "\0" in name:
            raise ValueError("the row names no image")
        shown = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
        raise ValueError(f"{shown} is not in the store")

    def above(self) -> None:
        return None

    def unpacked(self) -> None:
        return None


def open_remote(url: str, options: SourceOptions, detect: Detect, *, attempts: int = 4, pause: float = 0.5) -> Source:
    """The reader for a URL that ``detect`` finds.

    A read that fails is tried ``attempts`` times in all, with a pause (s) that doubles. Raises SourceError if the URL
    is none that can be read, if the store cannot be reached, refuses access or has nothing there; MissingExtra.
    """
    shown = shown_place(url)
    parts = _split(url, shown)
    reading = Reading(_store(parts, shown), attempts, pause)
    try:
        listing = reading.listing()
    except (FileNotFoundError, PermissionError) as error:
        raise SourceError(f"{shown} cannot be read: {error}") from error
    except OSError as error:
        raise SourceError(f"{shown} cannot be reached: {error}") from error
    except ValueError as error:
        raise SourceError(f"{shown} cannot be read: {error}") from error
    if not listing.files:
        raise SourceError(f"{shown} is empty")
    path = Path(os.devnull, posixpath.basename(parts.path.rstrip("/")) or parts.netloc)
    place = RemotePlace(path, url=shown, reading=reading, listing=listing)
    return detect(place, options)


def open_objects(url: str) -> tuple[Objects, str]:
    """The bucket of an ``s3://`` or ``gs://`` URL, to read and write, and the URL's path there, bucket included.

    Raises SourceError for another URL, and if the bucket cannot be reached; MissingExtra.
    """
    shown = shown_place(url)
    parts = _split(url, shown)
    if parts.scheme not in BUCKETS:
        raise SourceError(f"{shown} is in no bucket; write s3://BUCKET/FOLDER/ or gs://BUCKET/FOLDER/")
    store: Any = _store(parts, shown)  # an ArrowStore, whose class is not to be imported here
    return store, store.path


def _split(url: str, shown: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SourceError(f"{shown} is no address: {error}") from error
    if parts.fragment and parts.scheme in BUCKETS:
        raise SourceError(f"{shown}: write # in a name as %23")
    return parts


def _store(parts: SplitResult, shown: str) -> Store:
    if parts.scheme not in SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise SourceError(f"{shown} cannot be read: there are {schemes}, and paths of this machine")
    if not parts.netloc:
        raise SourceError(f"{shown} names no bucket and no server")
    if "@" in parts.netloc and parts.scheme != "hf":
        raise SourceError(f"{shown}: names and passwords do not belong into a URL, where logs show them")
    try:
        if parts.scheme in BUCKETS:
            from clip_retrieval.datasets.arrow_store import ArrowStore

            return ArrowStore(parts)
        from clip_retrieval.datasets.fsspec_store import FsspecStore

        return FsspecStore(parts)
    except ImportError as error:
        raise MissingExtra(f"reading {parts.scheme}://", "shards") from error
    except OSError as error:
        raise SourceError(f"{shown} cannot be reached: {error}") from error
    except ValueError as error:
        raise SourceError(f"{shown} cannot be read: {error}") from error
