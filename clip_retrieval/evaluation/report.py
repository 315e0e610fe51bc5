"""What an evaluation found, as plain values: the nouns of ``evaluate.py``, its tables, its plot and its page."""

from typing import Literal, TypeAlias

from clip_retrieval.contract.base import Frozen
from clip_retrieval.evaluation.recall import Interval, Metrics

Gallery: TypeAlias = Literal["train", "val", "test", "all"]
Way: TypeAlias = Literal["text_to_image", "image_to_text"]
WAYS: tuple[Way, ...] = ("text_to_image", "image_to_text")
CUTOFFS = (1, 5, 10)


class Result(Frozen):
    """Something that was found: an image, or a caption of it."""

    image_row: int
    image_path: str
    caption: str | None
    score: float


class Miss(Frozen):
    """A query whose first relevant item was not the first result."""

    image_row: int
    image_path: str
    caption: str | None
    """The query of text → image; None for image → text, where the image is the query."""
    rank: int
    score: float
    """Cosine of the query and its best relevant item."""
    found: tuple[Result, ...]
    """What came first instead."""


class Direction(Frozen):
    """One direction on one gallery."""

    queries: int
    candidates: int
    metrics: Metrics
    intervals: dict[str, Interval]
    """95 % bootstrap intervals of the metrics; images are resampled."""
    chance: dict[str, float]
    """What random order gives, by cutoff."""
    curve: tuple[tuple[int, float], ...]
    """Recall at more cutoffs, for a plot: (k, recall)."""
    worst: tuple[Miss, ...]


class GalleryQuality(Frozen):
    """Both directions on one gallery, and how much of it is repeated: such repeats count as misses."""

    gallery: Gallery
    images: int
    captions: int
    repeated_images: int
    """Images whose pixels are those of another image of the gallery."""
    repeated_captions: int
    """Captions whose text is that of a caption of another image of the gallery."""
    text_to_image: Direction
    image_to_text: Direction

    def ways(self) -> dict[str, Direction]:
        """Both directions by their name for people."""
        return {title(way): getattr(self, way) for way in WAYS}


class Quality(Frozen):
    """The whole report on a model and a collection."""

    name: str
    model: str
    model_fingerprint: str
    runtime: str
    data_fingerprint: str
    resamples: int
    seed: int
    galleries: tuple[GalleryQuality, ...]


def title(way: Way) -> str:
    """A direction's name for people."""
    return "text → image" if way == "text_to_image" else "image → text"
