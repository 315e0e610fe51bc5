"""Answers of the routes that search and encode."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PrivateAttr

from clip_retrieval.contract.base import Confidence, ErrorBody, Frozen, Score, Share
from clip_retrieval.contract.cards import Card, Look, Thumbnail, cards, text_of
from clip_retrieval.contract.clicks import SearchId
from clip_retrieval.records import Modality, Mode, Scalar


class ListedImage(Frozen):
    """An image that no query ranked."""

    rank: int = Field(description="1 for the first.")
    image_id: str
    image_path: str = Field(description="The path of the image file within the collection.")
    width: int = Field(description="Width of the upright image in pixels.")
    height: int
    captions: list[str]
    metadata: dict[str, Scalar] = Field(description="The values of the collection's other columns for this image.")


class ImageResult(ListedImage):
    """An image in the results."""

    similarity_score: Score
    confidence: Confidence = None
    share: Share | None = None
    duplicates: int = Field(0, description="How many near-duplicates were folded into this result.")
    found_by: Mode = Field(default="vector", description="What found it: its vector, its words, or both; see `mode`.")


class CaptionResult(Frozen):
    """A caption in the results, with the image that it belongs to."""

    rank: int = Field(description="1 for the best.")
    caption: str
    caption_id: str
    image_id: str
    image_path: str = Field(description="The path of the caption's image file within the collection.")
    similarity_score: Score
    confidence: Confidence = None
    share: Share | None = None
    duplicates: int = Field(0, description="How many near-duplicates were folded into this result.")
    found_by: Mode = Field(default="vector", description="What found it: its vector, its words, or both; see `mode`.")


class Drawn(Frozen):
    """An answer that a notebook shows as images."""

    _look: Look = PrivateAttr(default_factory=Look)

    def draw_with(self, thumbnail: Thumbnail) -> None:
        """Have the images drawn that ``thumbnail`` gives."""
        self._look = Look(thumbnail)

    def _cards(self) -> list[Card]:
        return []

    def _repr_html_(self) -> str:
        return cards(self._cards(), self._look)


def _of_images(results: Sequence[ImageResult | CaptionResult]) -> list[Card]:
    return [
        Card(
            one.image_id,
            one.similarity_score,
            one.caption if isinstance(one, CaptionResult) else text_of(one.captions, one.image_id),
        )
        for one in results
    ]


class ShortAnswer(Drawn):
    """What the answer of a short route says beside its results."""

    query: str = Field(description="The text, or the name of the uploaded file.")
    query_type: Literal["text", "image"]
    total_results: int
    query_time_ms: float = Field(description="From the parsed request to the answer, in milliseconds.")
    cached: bool = Field(description="Whether the results came from the cache.")
    truncated: bool = Field(False, description="Whether the model read only the beginning of the text.")
    below_confidence: int = Field(
        0, description="How many results there would be here besides, with less than `min_confidence`."
    )
    search_id: SearchId = None


class ImagesAnswer(ShortAnswer):
    """Images, best first."""

    results: list[ImageResult]

    def _cards(self) -> list[Card]:
        return _of_images(self.results)


class CaptionsAnswer(ShortAnswer):
    """Captions, best first."""

    results: list[CaptionResult]

    def _cards(self) -> list[Card]:
        return _of_images(self.results)


class TextEmbedding(Frozen):
    """The unit vector of a text."""

    embedding: list[float]
    dimension: int
    encoding_type: Literal["text"] = "text"
    text: str
    truncated: bool = False


class ImageEmbedding(Frozen):
    """The unit vector of an image."""

    embedding: list[float]
    dimension: int
    encoding_type: Literal["image"] = "image"
    filename: str


class SearchAnswerHead(Drawn):
    """What the answer of ``POST /search`` says beside its results."""

    target: Modality
    total_results: int = Field(description="How many results this page holds.")
    offset: int
    next_offset: int | None = Field(
        description="The offset of the next page; null on the last page, and where it would be above the greatest one."
    )
    query_time_ms: float = Field(description="From the parsed request to the answer, in milliseconds.")
    cached: bool = Field(description="Whether the results came from the cache.")
    truncated: bool = Field(False, description="Whether the model read only the beginning of a text.")
    below_confidence: int = Field(
        0, description="How many results there would be here besides, with less than `min_confidence`."
    )
    state: str | None = Field(
        None, description="The state of the collection; with it the next page comes from the same one, or is 410."
    )
    search_id: SearchId = None


class SearchAnswer(SearchAnswerHead):
    """One page of results, best first."""

    results: list[ImageResult] | list[CaptionResult]

    def _cards(self) -> list[Card]:
        return _of_images(self.results)


class BrowseAnswer(SearchAnswerHead):
    """One page of images without a query, in the order of ``sort``."""

    results: list[ListedImage]

    def _cards(self) -> list[Card]:
        return [Card(one.image_id, None, text_of(one.captions, one.image_id)) for one in self.results]


class BatchItem(Frozen):
    """The outcome of one search: its answer, or its error with the status that it would have alone."""

    status: int
    answer: SearchAnswer | BrowseAnswer | None = None
    error: ErrorBody | None = None


class SearchBatchAnswer(Frozen):
    """The outcome of each search, in order."""

    answers: list[BatchItem]
