"""A search or a click as a line of JSON.

A line has no address, no key and no name of a caller. With vectors alone it has no words either: no text, no filter, no
id of an image, which is often a file name; what was clicked is then named by the hash of its pixels.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.records import Modality

SEARCH_ID = re.compile(r"[0-9a-f]{32}")
"""What names a search in its answer and in its clicks."""
Inputs: TypeAlias = Literal["texts", "images", "mixed"]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)

    search_id: str
    at: AwareDatetime
    """In UTC, to the second."""


class LoggedPart(BaseModel):
    """One part of a search: a text, an image of the collection by its id, or an image that was sent: neither."""

    model_config = ConfigDict(frozen=True)

    text: str | None = None
    language: str | None = None
    image_id: str | None = None
    weight: FiniteFloat = 1.0


class LoggedSearch(_Line):
    """A search that was answered; ``parts`` is empty where only vectors are kept."""

    kind: Literal["search"] = "search"
    target: Modality
    inputs: Inputs
    parts: tuple[LoggedPart, ...] = ()
    encoder: str | None = None
    """The fingerprint of what made the vector."""
    vector: str | None = None
    """The query as it was searched with: float16 (dim,), little-endian, in base64. None where the texts do."""

    @property
    def words(self) -> str:
        """The parts as a person reads them."""
        return " + ".join(_words(part) for part in self.parts)


class LoggedClick(_Line):
    """An image among the results of a search that was opened: by its id, or by the hash of its pixels."""

    kind: Literal["click"] = "click"
    image_id: str | None = None
    content_hash: str | None = None


Entry: TypeAlias = LoggedSearch | LoggedClick
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


def now() -> datetime:
    """The time of an entry."""
    return datetime.now(UTC).replace(microsecond=0)


def line_of(entry: Entry) -> bytes:
    """The entry as a line."""
    return entry.model_dump_json(exclude_none=True).encode() + b"\n"


def entry_of(line: bytes) -> Entry:
    """The entry of a line. Raises ValueError for a line that was not written whole."""
    return _ENTRY.validate_json(line)


def packed(vector: Vectors) -> str:
    """A unit vector (dim,) as text, a third of what its float32 takes in base64 and as near as 0.0005 a component."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def unpacked(text: str) -> Vectors:
    """The unit vector (dim,), float32. Raises ValueError for what ``packed`` did not write."""
    vector: Vectors = unit_rows(np.frombuffer(base64.b64decode(text, validate=True), "<f2")[None])[0]
    return vector


def _words(part: LoggedPart) -> str:
    what = part.text or (part.image_id and f"image {part.image_id}") or "an image"
    return what if part.weight == 1 else f"{part.weight:g} × {what}"
