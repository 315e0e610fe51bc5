"""Captioned images as training batches, with a mask of the pairs that are not negatives.

A contrastive batch treats every caption of another image as wrong. This is false for equal images, for images with
several captions, and for captions with the same words; such pairs are masked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.records import ImageBlob, Split, ValidImage

RowNumbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """An image and its captions. ``content_hash`` is that of ``ValidImage``; ``split`` is None if none is given."""

    blob: ImageBlob
    content_hash: str
    captions: tuple[str, ...]
    split: Split | None

    @classmethod
    def of(cls, image: ValidImage, split: Split | None) -> Self:
        """A validated image of a source."""
        return cls(image.blob, image.content_hash, tuple(caption.text for caption in image.captions), split)


class Batch(NamedTuple):
    """Row numbers of images, the view number of each image, and the row number of one caption of each image."""

    images: RowNumbers
    views: RowNumbers
    captions: RowNumbers


class Pairs:
    """Images with at least one caption, in the order given, and all their captions, image by image."""

    def __init__(self, images: Sequence[TrainingImage]) -> None:
        self.images = [image for image in images if image.captions]
        self.texts = [text for image in self.images for text in image.captions]
        counts = [len(image.captions) for image in self.images]
        self.image_of: RowNumbers = np.repeat(np.arange(len(self.images)), counts)
        """The image of each caption."""
        self._first: RowNumbers = np.cumsum([0, *counts])
        numbers: dict[str, int] = {}
        words = [numbers.setdefault(" ".join(text.casefold().split()), len(numbers)) for text in self.texts]
        self._words: RowNumbers = np.array(words, dtype=np.int64)
        described: dict[str, set[int]] = {}
        for row, word in zip(self.image_of, words, strict=True):
            described.setdefault(self.images[row].content_hash, set()).add(word)
        self._described = [described[image.content_hash] for image in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def described(self, images: RowNumbers, captions: RowNumbers) -> NDArray[np.bool_]:
        """Whether each caption is known to describe each image. Shape (len(images), len(captions)).

        It does if the image, or an image with equal pixels, has a caption with the same words. Case and spaces do not
        count.
        """
        words = self._words[captions]
        true = [[int(word) in self._described[row] for word in words] for row in images]
        return np.array(true, dtype=bool).reshape(len(images), len(captions))

    def batches(self, epoch: int, size: int, views: int, seed: int) -> Iterator[Batch]:
        """Every image once in random order, each with one of its views (0 to ``views``) and one of its captions.

        The batches depend only on the epoch and the seed. The last batch may be smaller; it is left out if it holds a
        single image, which has no negative.
        """
        draw = np.random.default_rng([seed, epoch])
        order = draw.permutation(len(self))
        drawn_views = draw.integers(0, views + 1, len(self))
        captions = draw.integers(self._first[:-1], self._first[1:])
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            if len(chosen) > 1:
                yield Batch(chosen, drawn_views[chosen], captions[chosen])

    def steps(self, size: int) -> int:
        """The number of batches of ``size`` in an epoch."""
        whole, rest = divmod(len(self), size)
        return whole + (rest > 1)
