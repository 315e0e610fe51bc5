"""Hits as the JSON of the API's results, in the form of ``ImageResult`` and ``CaptionResult``.

What does not depend on the query, a record, is rendered once and kept as a *fragment*: the members of a JSON object
without its braces. A result is the numbers of a hit in front of a fragment.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from clip_retrieval.contract.answers import CaptionResult, ImageResult, ListedImage
from clip_retrieval.contract.collection import ImageInfo
from clip_retrieval.records import CaptionRecord, ImageRecord
from clip_retrieval.search.hits import CaptionHit, Hit, ImageHit, ListedPage, ResultPage


def render(hits: Iterable[Hit], fragments: Iterable[str]) -> bytes:
    """A JSON array of results; ``fragments`` are those of the rows of ``hits``, in the same order."""
    results = (
        f'{{"rank":{hit.rank},"similarity_score":{hit.score!r},"confidence":{_number(hit.confidence)},"share":{hit.share!r},'
        f'"duplicates":{hit.duplicates},"found_by":"{hit.found_by}",{fragment}}}'
        for hit, fragment in zip(hits, fragments, strict=True)
    )
    return f"[{','.join(results)}]".encode()


def _number(value: float | None) -> str:
    return "null" if value is None else repr(value)


def render_listed(first: int, fragments: Iterable[str]) -> bytes:
    """A JSON array of images that no query ranked, of which the first has the rank ``first``."""
    ranked = (f'{{"rank":{rank},{fragment}}}' for rank, fragment in enumerate(fragments, first))
    return f"[{','.join(ranked)}]".encode()


def image_fragment(image: ImageRecord, captions: Sequence[CaptionRecord]) -> str:
    return _members(
        {
            "image_id": image.image_id,
            "image_path": image.image_path,
            "width": image.width,
            "height": image.height,
            "captions": [caption.text for caption in captions],
            "metadata": dict(image.metadata),
        }
    )


def caption_fragment(caption: CaptionRecord, image: ImageRecord) -> str:
    return _members(
        {
            "caption": caption.text,
            "caption_id": caption.caption_id,
            "image_id": image.image_id,
            "image_path": image.image_path,
        }
    )


def results(page: ResultPage) -> list[ImageResult] | list[CaptionResult]:
    """The results of a page, of the kind that was asked for."""
    if page.captions:
        return [caption_result(hit) for hit in page.captions]
    return [image_result(hit) for hit in page.images]


def image_result(hit: ImageHit) -> ImageResult:
    return ImageResult(
        rank=hit.rank,
        image_id=hit.image.image_id,
        image_path=hit.image.image_path,
        width=hit.image.width,
        height=hit.image.height,
        similarity_score=hit.score,
        confidence=hit.confidence,
        share=hit.share,
        captions=[caption.text for caption in hit.captions],
        metadata=dict(hit.image.metadata),
        duplicates=hit.duplicates,
        found_by=hit.found_by,
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
        share=hit.share,
        duplicates=hit.duplicates,
        found_by=hit.found_by,
    )


def listed_images(page: ListedPage) -> list[ListedImage]:
    """The images of a page that no query ranked."""
    return [
        ListedImage(
            rank=rank,
            image_id=image.image_id,
            image_path=image.image_path,
            width=image.width,
            height=image.height,
            captions=[caption.text for caption in captions],
            metadata=dict(image.metadata),
        )
        for rank, (image, captions) in enumerate(page.images, page.offset + 1)
    ]


def image_info(image: ImageRecord, captions: Sequence[CaptionRecord], etag: str | None = None) -> ImageInfo:
    return ImageInfo(
        image_id=image.image_id,
        image_path=image.image_path,
        width=image.width,
        height=image.height,
        split=image.split,
        captions=[caption.text for caption in captions],
        metadata=dict(image.metadata),
        content_hash=image.content_hash,
        etag=etag,
    )


def _members(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))[1:-1]
