"""Hits of the retriever as results of the API."""

from clip_retrieval.retriever import CaptionHit, ImageHit
from clip_retrieval.schemas import CaptionResult, ImageResult


def image_result(hit: ImageHit) -> ImageResult:
    return ImageResult(
        rank=hit.rank,
        image_id=hit.image.image_id,
        image_path=hit.image.image_path,
        similarity_score=hit.score,
        confidence=hit.confidence,
        captions=[caption.text for caption in hit.captions],
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
    )
