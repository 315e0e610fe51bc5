"""The result of an evaluation, as plain values for the tables, the plot and the HTML page."""

from typing import Literal, TypeAlias

from clip_retrieval.contract.base import Frozen
from clip_retrieval.evaluation.recall import Interval, Metrics
from clip_retrieval.records import WAYS, Mode, Way

Gallery: TypeAlias = Literal["train", "val", "test", "all"]
CUTOFFS = (1, 5, 10)


class Result(Frozen):
    """One result of a query: an image, or a caption of an image."""

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
    """The cosine of the query and its best relevant item."""
    found: tuple[Result, ...]
    """The first results."""


class Direction(Frozen):
    """One direction on one gallery."""

    queries: int
    candidates: int
    metrics: Metrics
    intervals: dict[str, Interval]
    """95 % bootstrap intervals of the metrics; images are resampled."""
    chance: dict[str, float]
    """The recall of a random order, by cutoff."""
    curve: tuple[tuple[int, float], ...]
    """Recall at more cutoffs, for the plot: (k, recall)."""
    worst: tuple[Miss, ...]


class _Ways(Frozen):
    def ways(self) -> dict[str, Direction]:
        """Both directions by their title."""
        return {title(way): getattr(self, way) for way in WAYS}


class LanguageQuality(_Ways):
    """Both directions with the captions of one language, and all images of the gallery."""

    language: str | None
    """As the source writes it; None for the captions without a language, where others have one."""
    images: int
    """Images that have captions in this language."""
    captions: int
    text_to_image: Direction
    image_to_text: Direction


class GalleryQuality(_Ways):
    """Both directions on one gallery, and how many of its items are not unique; such items can cause misses."""

    gallery: Gallery
    images: int
    captions: int
    repeated_images: int
    """Images whose pixels equal those of another image of the gallery."""
    repeated_captions: int
    """Captions whose text equals that of a caption of another image of the gallery."""
    text_to_image: Direction
    image_to_text: Direction
    languages: tuple[LanguageQuality, ...] = ()
    """One for each language, if captions have one; without their worst misses."""
    languages_left_out: int = 0
    """How many more languages there are, those with the fewest captions, that were not measured."""


class Bin(Frozen):
    """Pairs of nearly the same confidence."""

    said: float
    """The mean of their confidence."""
    found: float
    """The share of right ones among them."""
    pairs: int
    weight: float
    """How much they count: the pairs of each query count the same, right and wrong ones even."""


class Reliability(Frozen):
    """Whether the confidence of one way keeps what it says, and what the collection's bound on it costs."""

    way: Way
    slope: float
    intercept: float
    caption_slope: float | None = None
    """How much the nearest caption counts; None where it does not, as for image → text."""
    queries: int
    bins: tuple[Bin, ...]
    mean_gap: float
    """The mean of the distances between what is said and what is found (the expected calibration error)."""
    min_confidence: float
    """The bound."""
    least_cosine: float
    """The score at that confidence; where the nearest caption counts, for a text as near to one as the median."""
    lost: dict[str, float]
    """By how much recall falls, by cutoff, where results below ``min_confidence`` are left out."""


class ModesQuality(Frozen):
    """Searches for images by vectors, by words and by both; see ``by_mode.py``."""

    kind: str
    """What was asked: ``captions`` or ``named captions``."""
    queries: int
    recalls: dict[Mode, dict[str, float]]
    """By mode and cutoff."""
    gain: dict[str, float]
    """By how much ``both`` finds more than ``vector``, by cutoff."""
    gain_intervals: dict[str, Interval]
    """95 % bootstrap intervals of that; images are resampled."""


class Quality(Frozen):
    """The whole report of a model on a collection."""

    name: str
    model: str
    model_fingerprint: str
    runtime: str
    data_fingerprint: str
    resamples: int
    seed: int
    galleries: tuple[GalleryQuality, ...]
    reliability: tuple[Reliability, ...] = ()
    """For the whole collection; none for a way without a confidence."""
    modes: tuple[ModesQuality, ...] = ()
    """For the whole collection."""


def title(way: Way) -> str:
    """The title of a direction, for tables and plots."""
    return "text → image" if way == "text_to_image" else "image → text"
