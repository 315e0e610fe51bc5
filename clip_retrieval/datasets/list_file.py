"""A file that lists images with their captions: what its readers have in common."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from clip_retrieval.datasets.rows import Row
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.taking import TakenFile
from clip_retrieval.records import Reject


class ListFile(Protocol):
    """A file that was understood as a list of images."""

    @property
    def layout(self) -> str:
        """The name of the layout."""
        ...

    @property
    def file(self) -> StoredFile: ...

    @property
    def has_captions(self) -> bool:
        """Whether the file has captions at all."""
        ...

    @property
    def columns(self) -> dict[str, list[str]]:
        """The columns by what they are."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """The columns as the file names them."""
        ...

    def taken(self) -> TakenFile:
        """How the file is read."""
        ...

    def rows(self) -> Iterator[Row | Reject]:
        """The rows in order. Raises SourceError."""
        ...


class NotAList(Exception):
    """The file does not list images; the message says what was seen, and what would be read."""


class OtherAnnotations(NotAList):
    """The file lists images with something else than captions, such as the boxes of COCO."""


class AnotherKind(NotAList):
    """The file is no text at all, whatever it is called: a workbook, an archive, a web page."""
