"""What a search found: hits as numbers, the same with their records, and a page of either."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from clip_retrieval.contract.cards import Card, Look, cards, text_of
from clip_retrieval.records import CaptionRecord, ImageRecord, Modality, Mode
from clip_retrieval.stages import Stage

Finder: TypeAlias = Mode
"""What found a row: its vector, its words, or both."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A found row, in numbers alone.

    ``rank`` counts from 1 over all pages. ``score`` is the cosine of query and row in [-1, 1], higher is better.
    ``confidence`` is the share of right answers at such a score (``artifacts/confidence.py``); None where the
    collection cannot say. ``share`` is the softmax of the scores of its page at the encoder's logit scale.
    ``duplicates`` is the number of near-duplicates that were folded into it. ``found_by`` says what found it.
    """

    row: int
    rank: int
    score: float
    confidence: float | None
    share: float
    duplicates: int = 0
    found_by: Finder = "vector"


@dataclass(frozen=True, slots=True)
class ImageHit:
    """A found image with its captions. Numbers as in ``Hit``."""

    rank: int
    score: float
    confidence: float | None
    share: float
    image: ImageRecord
    captions: tuple[CaptionRecord, ...]
    duplicates: int = 0
    found_by: Finder = "vector"


@dataclass(frozen=True, slots=True)
class CaptionHit:
    """A found caption and the image that it is about. Numbers as in ``Hit``."""

    rank: int
    score: float
    confidence: float | None
    share: float
    caption: CaptionRecord
    image: ImageRecord
    duplicates: int = 0
    found_by: Finder = "vector"


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """One page of a search as rows, and the offset of the next page if there is one.

    ``search`` is the wall time of the search alone: filter, index and folding, not the look-up of records.
    ``below`` is how many results the page would have besides, without ``min_confidence``.
    """

    target: Modality
    hits: Sequence[Hit]
    next_offset: int | None
    search: Stage
    below: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of images that no query ranked, as rows; ``search`` as in ``SearchOutcome``."""

    rows: Sequence[int]
    offset: int
    next_offset: int | None
    search: Stage


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One page of images that no query ranked, each with its captions; the first has the rank ``offset`` + 1."""

    images: list[tuple[ImageRecord, list[CaptionRecord]]]
    offset: int
    next_offset: int | None
    look: Look = field(default_factory=Look, repr=False, compare=False)

    def _repr_html_(self) -> str:
        return cards((_listed_card(*one) for one in self.images), self.look)


@dataclass(frozen=True, slots=True)
class ResultPage:
    """One page of a search with records: hits of the kind that was asked for; the other list is empty."""

    images: list[ImageHit]
    captions: list[CaptionHit]
    next_offset: int | None
    search: Stage
    below: int = 0
    look: Look = field(default_factory=Look, repr=False, compare=False)

    def _repr_html_(self) -> str:
        return cards(_cards([*self.images, *self.captions]), self.look)


H = TypeVar("H", bound=ImageHit | CaptionHit)


class Hits(list[H]):
    """Hits, best first, which a notebook shows with their images."""

    def __init__(self, hits: Iterable[H], look: Look) -> None:
        super().__init__(hits)
        self._look = look

    def _repr_html_(self) -> str:
        return cards(_cards(self), self._look)


def _cards(hits: Iterable[ImageHit | CaptionHit]) -> Iterator[Card]:
    for hit in hits:
        name = hit.image.image_id
        captions = [hit.caption] if isinstance(hit, CaptionHit) else hit.captions
        yield Card(name, hit.score, text_of((caption.text for caption in captions), name))


def _listed_card(image: ImageRecord, captions: list[CaptionRecord]) -> Card:
    return Card(image.image_id, None, text_of((caption.text for caption in captions), image.image_id))
