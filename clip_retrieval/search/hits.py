"""What a search found: hits with their records, and a page of them. Plain frozen dataclasses."""

from dataclasses import dataclass

from clip_retrieval.records import CaptionRecord, ImageRecord


@dataclass(frozen=True, slots=True)
class ImageHit:
    """A found image. ``score`` is the cosine; ``confidence`` the softmax of the returned scores.

    ``duplicates`` is the number of near-duplicates that were folded into it.
    """

    rank: int
    score: float
    confidence: float
    image: ImageRecord
    captions: tuple[CaptionRecord, ...]
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class CaptionHit:
    """A found caption and the image that it is about. Numbers as in ``ImageHit``."""

    rank: int
    score: float
    confidence: float
    caption: CaptionRecord
    image: ImageRecord
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """One page of a search: hits of the kind that was asked for, and the offset of the next page if there is one.

    ``search_s`` is the wall time of the search in seconds: filter, index, folding; not the look-up of the records. It
    began at ``search_start`` of ``time.perf_counter``.
    """

    images: list[ImageHit]
    captions: list[CaptionHit]
    next_offset: int | None
    search_start: float
    search_s: float
