"""A query as the search takes it: from a route of the API, the command line or a Python program.

A query has one or more parts, each a text, an image or an image of the collection, with a weight. The short routes of
the API are queries of one part. A query without parts shows images in an order of their own.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias

from PIL import Image

from clip_retrieval.artifacts.word_search import wanted_words
from clip_retrieval.contract.base import DEFAULT_K
from clip_retrieval.contract.conditions import Conditions
from clip_retrieval.contract.queries import SearchRequest, Sort
from clip_retrieval.errors import ImageRejected
from clip_retrieval.images.base64_text import bytes_of_base64
from clip_retrieval.images.decode import Limits, decode_image
from clip_retrieval.records import Modality, Mode, Way, way_of
from clip_retrieval.search.filters import canonical


class QueryImage(Protocol):
    """An image that is not decoded yet."""

    @property
    def key(self) -> str:
        """Equal for equal images; a cache finds their vectors and answers by it."""

    @property
    def size(self) -> int:
        """The bytes that it came in; 0 if it is no file."""

    @property
    def data(self) -> bytes | str:
        """The bytes of the file; or, as a text, why there are none."""

    def decode(self, limits: Limits) -> Image.Image:
        """The upright RGB image. Raises ImageRejected."""


@dataclass(frozen=True)
class FileImage:
    """An image as the bytes of its file."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def key(self) -> str:
        return f"file:{hashlib.sha256(self.data).hexdigest()}"

    def decode(self, limits: Limits) -> Image.Image:
        return decode_image(self.data, limits)


@dataclass(frozen=True)
class Base64Image:
    """An image file in base64, as JSON carries it."""

    encoded: str

    @property
    def size(self) -> int:
        return len(self.encoded)

    @cached_property
    def data(self) -> bytes | str:
        """The bytes of the file; or, as a text, why there are none."""
        try:
            return bytes_of_base64(self.encoded)
        except ValueError as error:
            return str(error)

    @cached_property
    def key(self) -> str:
        if isinstance(self.data, bytes):
            return FileImage(self.data).key
        return f"text:{hashlib.sha256(self.encoded.encode('utf-8', 'replace')).hexdigest()}"  # each has its own reason

    def decode(self, limits: Limits) -> Image.Image:
        if isinstance(self.data, str):
            raise ImageRejected(self.data)
        return decode_image(self.data, limits)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the collection, by its id. Its vector is known."""

    image_id: str


Content: TypeAlias = str | StoredImage | QueryImage
"""What a part of a query is: a text, an image of the collection, or another image."""


class QueryText(NamedTuple):
    """A text, and the language to mark it with; None for the usual one of the model."""

    words: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One part of a query. A negative ``weight`` subtracts; zero is not allowed. Only a text has a ``language``."""

    content: Content
    weight: float = 1.0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Parts, what to find, and which page of it. Fields as in ``SearchRequest``."""

    parts: tuple[QueryPart, ...]
    target: Modality = "images"
    k: int = DEFAULT_K
    offset: int = 0
    min_score: float | None = None
    dedupe: bool = False
    where: Conditions | None = None
    sort: Sort | None = None
    min_confidence: float | None = None
    mode: Mode = "vector"

    @classmethod
    def of(cls, request: SearchRequest) -> "Query":
        """The query of a request that was validated."""
        return cls(
            parts=tuple(
                QueryPart(
                    part.text
                    if part.text is not None
                    else StoredImage(part.image_id)
                    if part.image_id is not None
                    else Base64Image(part.image or ""),
                    part.weight,
                    part.language,
                )
                for part in request.queries
            ),
            target=request.target,
            k=request.k,
            offset=request.offset,
            min_score=request.min_score,
            dedupe=request.dedupe,
            where=request.where,
            sort=request.sort,
            min_confidence=request.min_confidence,
            mode=request.mode,
        )

    @property
    def texts(self) -> list[QueryText]:
        """The texts that have to be tokenised."""
        return [QueryText(part.content, part.language) for part in self.parts if isinstance(part.content, str)]

    @property
    def words(self) -> dict[str, float]:
        """The words of the texts, each with its weight; see ``word_search.py``."""
        return wanted_words((part.content, part.weight) for part in self.parts if isinstance(part.content, str))

    @property
    def images(self) -> list[QueryImage]:
        """The images that have to be decoded."""
        return [part.content for part in self.parts if not isinstance(part.content, str | StoredImage)]

    @property
    def way(self) -> Way | None:
        """The way between texts and images that the search goes; None for images to images, and for mixes."""
        texts = len(self.texts)
        return way_of(self.target, has_texts=texts > 0, has_images=texts < len(self.parts))

    def key(self) -> str:
        """The same text for queries that have the same answer, and for no others."""
        parts = [[*content_key(part), part.weight] for part in self.parts]
        page = [self.target, self.k, self.offset, self.min_score, self.min_confidence, self.dedupe, self.mode]
        sort = None if self.sort is None else [self.sort.field, self.sort.descending]
        return json.dumps([parts, page, canonical(self.where) if self.where else None, sort])


def content_key(part: QueryPart) -> tuple[str, str] | tuple[str, str, str]:
    """What a part's vector depends on: the kind of the content, its value and, if it is given, its language."""
    content = part.content
    if isinstance(content, str):
        return ("text", content) if part.language is None else ("text", content, part.language)
    if isinstance(content, StoredImage):
        return "image_id", content.image_id
    return "image", content.key
