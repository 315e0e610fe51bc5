"""Hits and records of the retriever as results of the API."""

from collections.abc import Sequence

from clip_retrieval.contract.answers import CaptionResult, ImageResult
from clip_retrieval.contract.collection import ImageInfo
from clip_retrieval.records import CaptionRecord, ImageRecord
from clip_retrieval.search.hits import CaptionHit, Found, ImageHit


def image_result(hit: ImageHit) -> ImageResult:
    return ImageResult(
        rank=hit.rank,
        image_id=hit.image.image_id,
        image_path=hit.image.image_path,
        width=hit.image.width,
        height=hit.image.height,
        similarity_score=hit.score,
        confidence=hit.confidence,
        captions=[caption.text for caption in hit.captions],
        metadata=dict(hit.image.metadata),
        duplicates=hit.duplicates,
    )


def caption_result(hit: CaptionHit) -> CaptionResult:
    return CaptionResult(
        rank=hit.rank,
        caption=hit.caption.text,
        caption_id=hit.caption.caption_id,
        image_id=hit.image.image_id,
        image_path=hit.image.image_path,
        similarity_score=hit.score,
        confidence=hit.confidence,
        duplicates=hit.duplicates,
    )


def results(found: Found) -> list[ImageResult] | list[CaptionResult]:
    """The results of a page, of the kind that was asked for."""
    if found.captions:
        return [caption_result(hit) for hit in found.captions]
    return [image_result(hit) for hit in found.images]


def image_info(image: ImageRecord, captions: Sequence[CaptionRecord]) -> ImageInfo:
    return ImageInfo(
        image_id=image.image_id,
        image_path=image.image_path,
        width=image.width,
        height=image.height,
        split=image.split,
        captions=[caption.text for caption in captions],
        metadata=dict(image.metadata),
    )
