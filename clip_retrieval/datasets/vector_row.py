"""The place of a vector that another program made."""

from dataclasses import dataclass

from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.errors import ImageRejected


@dataclass(frozen=True, slots=True)
class VectorRow:
    """The place of a vector, in the stead of an image. An ``ImageBlob`` without bytes."""

    name: str
    vectors: StoredFile
    row: int
    rows: int
    """How many rows the metadata has; so many vectors must be there."""
    text: StoredFile | None
    """The vectors of the captions; the first caption of an image has the same row."""

    def read(self, limit: int) -> bytes:  # noqa: ARG002
        """Raises ImageRejected: only the vector was taken."""
        raise ImageRejected("its vector was taken as it is, without the image")
