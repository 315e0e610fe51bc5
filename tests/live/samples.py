"""Made-up images of a log, each known by its id and a number."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from clip_retrieval.encoders.base import unit_rows
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.live.change import LiveCaption, LiveImage, LogEntry
from clip_retrieval.live.image_bytes import image_to_bytes
from clip_retrieval.live.log import ChangeLog

DIM = 8
FINGERPRINT = "f" * 64

open_log = partial(ChangeLog.open, fingerprint=FINGERPRINT, dim=DIM)


def live_image(image_id: str, number: int = 0, *, thumbnail_bytes: int = 300, dim: int = DIM) -> LiveImage:
    """The state ``number`` of this image: every number has other content, and every call the same."""
    seed = hashlib.sha256(f"{image_id} {number}".encode()).digest()
    numbers = np.random.default_rng(list(seed))
    captions = tuple(LiveCaption(f"{image_id}#{place}", f"caption {place} of {number}") for place in range(number % 3))
    return LiveImage(
        image_id=image_id,
        image_path=f"images/{image_id}.jpg",
        content_hash=seed.hex(),
        width=640,
        height=480 + number,
        split="train",
        metadata={"number": number, "place": "Köln", "day": None, "good": True, "score": 0.5},
        captions=captions,
        vector=unit_rows(numbers.normal(size=dim)),
        caption_vectors=unit_rows(numbers.normal(size=(len(captions), dim))),
        thumbnail=Thumbnail(numbers.bytes(thumbnail_bytes), numbers.bytes(thumbnail_bytes) if number % 2 else None),
    )


def as_bytes(image: LiveImage | None) -> bytes | None:
    """All that there is of an image, to compare."""
    return None if image is None else image.image_id.encode() + image_to_bytes(image, DIM)


def content(entries: Sequence[LogEntry]) -> list[tuple[int, str, bytes | None]]:
    """Entries, to compare."""
    return [(entry.sequence, entry.image_id, as_bytes(entry.image)) for entry in entries]


def put(log: ChangeLog, *images: LiveImage) -> int:
    """Put images in one transaction; the number of the last change."""
    with log.transaction() as transaction:
        return [transaction.put(image) for image in images][-1]


def files_of(path: Path) -> dict[str, bytes]:
    """Every file of the log, and what is in it."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name)}
