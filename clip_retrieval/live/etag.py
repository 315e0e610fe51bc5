"""The name of an image's state (RFC 9110, section 8.8.3)."""

import hashlib
import json
from collections.abc import Iterable

from clip_retrieval.live.change import LiveCaption, LiveImage
from clip_retrieval.records import CaptionRecord, ImageRecord


def etag_of(image: LiveImage | ImageRecord, captions: Iterable[LiveCaption | CaptionRecord]) -> str:
    """32 hex digits, equal for equal states: in every worker, and also after a compaction.

    Vectors and thumbnails follow from the pixels, which ``content_hash`` stands for.
    """
    state = [
        image.image_id,
        image.image_path,
        image.content_hash,
        image.split,
        dict(image.metadata),
        [[caption.caption_id, caption.text] for caption in captions],
    ]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:32]
