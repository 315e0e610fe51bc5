"""The words of added images and captions, beside the index of the base."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.words import caption_words, image_words
from clip_retrieval.live.growing import GrowingArray
from clip_retrieval.records import MODALITIES, CaptionRecord, FieldType, ImageRecord, Modality, Scalar, field_type


class AddedWords:
    """Which added rows have a word. One thread at a time may add rows; any thread may read those that were there."""

    def __init__(self, chosen: Sequence[str] | None, types: Mapping[str, FieldType]) -> None:
        """``chosen`` are the metadata columns whose words count; None means those of text, by the ``types`` of the
        base. A column that the base has not is one of text where the value is."""
        self._chosen = None if chosen is None else frozenset(chosen)
        self._types = types
        self._numbers: dict[Modality, dict[str, list[int]]] = {target: {} for target in MODALITIES}
        self._lengths = {target: GrowingArray(np.int32) for target in MODALITIES}

    def add(self, image: ImageRecord, captions: Sequence[CaptionRecord]) -> None:
        """Add the next image with its captions."""
        columns = {name for name, value in image.metadata.items() if self._counts(name, value)}
        self._add("images", image_words(image, (caption.text for caption in captions), columns))
        for caption in captions:
            self._add("captions", caption_words(caption.text))

    def numbers(self, target: Modality, word: str, count: int) -> NDArray[np.int64]:
        """Which of the first ``count`` added rows have the word, in order."""
        found = self._numbers[target].get(word, [])
        return np.array(found[: bisect_left(found, count)], np.int64)

    def lengths(self, target: Modality, count: int) -> NDArray[np.int32]:
        """How many different words each of the first ``count`` added rows has."""
        lengths: NDArray[np.int32] = self._lengths[target].first(count)
        return lengths

    def _add(self, target: Modality, words: Sequence[str]) -> None:
        number = self._lengths[target].count
        for word in words:
            self._numbers[target].setdefault(word, []).append(number)
        self._lengths[target].append(np.array([len(words)], np.int32))

    def _counts(self, name: str, value: Scalar) -> bool:
        """Whether a build would take words from this value."""
        if self._chosen is not None:
            return name in self._chosen
        known = self._types.get(name)
        if known is not None:
            return known == "text"
        return isinstance(value, str) and field_type(value) == "text"
