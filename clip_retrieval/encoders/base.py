"""The interface of encoders, which is the seam between the product and its models.

An encoder maps texts and images into one space of unit float32 vectors, so that an inner product is a cosine. The work
on one text (``tokenize``) or one image (``preprocess``) is separate from the work on a batch (``encode_tokens``,
``encode_pixels``), so that a server can do the former while the model computes another batch. The implementations are
interchangeable; this file knows none of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from clip_retrieval.encoders.languages import Languages, near_languages
from clip_retrieval.errors import EncoderFailed, InvalidQuery

Vectors: TypeAlias = NDArray[np.float32]
"""Shape (n, dim), float32, each row of unit length."""

Pixels: TypeAlias = NDArray[np.float32]
"""Shape (n, 3, height, width), or (3, height, width) for one image; float32, normalised for the model."""

UNKNOWN = "\U00012000"
"""A cuneiform sign, which no vocabulary has."""

LEAST_COSINE = 0.999
"""Between the vectors of one input by two runtimes of a model. Below it, one of them does not compute the model,
or in too low a precision."""

Preprocessing: TypeAlias = Callable[[Image.Image], Pixels]
"""From one RGB image to its pixels, float32, shape (3, height, width)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of one text. Texts with the same tokens have the same vector."""

    ids: tuple[int, ...]
    """Special tokens included; at most as many as the model's context holds."""
    is_cut: bool
    """Whether the text has more tokens than the context holds, so that the model does not read its end."""


class EncoderInfo(BaseModel):
    """The description of an encoder, in its folder and in the manifest of every artifact that it made."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The name that users see: ``demo``, ``ViT-B-32 (laion2b_s34b_b79k)``."""
    runtime: Literal["torch", "openvino", "fake"]
    """The implementation that loads the encoder's files."""
    precisions: tuple[Literal["f32", "int8"], ...] = ("f32",)
    """The precisions of the weights in the encoder's files."""
    dim: int
    """Dimension of the vectors."""
    context_length: int
    """The largest number of tokens that the model reads, start and end tokens included."""
    image_size: tuple[int, int]
    """Height and width of the model's input in pixels."""
    logit_scale: float
    """The trained factor (after exponentiation) between a cosine and a logit."""
    fingerprint: str
    """Hex SHA-256 of the weights, the tokenizer and the preprocessing. Vectors of encoders with different fingerprints
    must never be in one index."""


class Encoder(ABC):
    """Texts and images to unit vectors. Safe to call from several threads."""

    info: EncoderInfo
    languages: Languages | None = None
    """The languages that a text can be marked with; None for most models, which do not mark texts."""
    owns_threads: bool = False
    """Whether the runtime computes in threads of its own. The thread that calls an ``encode`` method then only waits;
    otherwise it computes too."""
    text_batches_at_once: int = 1
    """How many batches of texts the encoder can compute at the same time without losing throughput, each called from a
    thread of its own."""
    advice: str | None = None
    """What would make it much faster on this CPU; None if nothing is known to."""

    @abstractmethod
    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        """Clean one text, split it into tokens and cut it to the model's context.

        ``language`` is one of ``languages``; None means the usual one. Raises InvalidQuery as ``check_language`` does.
        """

    def check_language(self, language: str | None) -> None:
        """Raise InvalidQuery if a text cannot be marked with ``language``; None is the usual one of any model."""
        if language is None:
            return
        if self.languages is None:
            raise InvalidQuery(f"the model {self.info.name} does not mark texts with their language: leave it out")
        if language not in self.languages.ids:
            raise InvalidQuery(
                f"the model {self.info.name} knows no language {language}"
                f"{near_languages(language, self.languages.ids) or '; give a code'}"
                f" (it has {len(self.languages.ids)} codes such as {self.languages.usual})"
            )

    def knows(self, word: str) -> bool:
        """Whether ``word`` is one token of the model, as words are that were common in what it was trained on.

        Names are split into several tokens, and what they stand for is rarely in the vectors. Nor is what a number
        stands for, even where it is one token.
        """
        if any(map(str.isdigit, word)):
            return False
        own = [token for token in self.tokenize(word).ids if token not in self._special_tokens]
        return len(own) == 1 and own[0] not in self._tokens_of_the_unknown

    @cached_property
    def _special_tokens(self) -> frozenset[int]:
        """What tokens of every text have, padding too."""
        return frozenset(self.tokenize("").ids)

    @cached_property
    def _tokens_of_the_unknown(self) -> frozenset[int]:
        """What stands for a character that is in no vocabulary: one token for all such, or its bytes."""
        return frozenset(self.tokenize(UNKNOWN).ids) - self._special_tokens

    @abstractmethod
    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        """Encode tokenised texts as one batch. Shape (len(texts), dim)."""

    def prepare_tokens(self, texts: Sequence[Tokens]) -> Callable[[], Vectors]:
        """A function that returns the vectors of ``encode_tokens``, to be called once, in any thread.

        An implementation does its work in Python here, as far as it can, so that the function rarely needs the GIL.
        """
        return partial(self.encode_tokens, texts)

    @abstractmethod
    def preprocess(self, image: Image.Image) -> Pixels:
        """Resize, crop and normalise one RGB image. Shape (3, height, width)."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """``preprocess`` as something that can be pickled and needs no model, for a process that decodes images; None
        if there is no such thing.
        """
        return None

    @abstractmethod
    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Encode preprocessed images, shape (n, 3, height, width), as one batch. Shape (n, dim)."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Tokenise and encode texts as one batch; each is cut at the model's context. Shape (len(texts), dim)."""
        return self.encode_tokens([self.tokenize(text) for text in texts])

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Preprocess and encode RGB images as one batch. Shape (len(images), dim)."""
        if not images:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return self.encode_pixels(np.stack([self.preprocess(image) for image in images]))


def unit_rows(vectors: NDArray[np.floating]) -> Vectors:
    """Each row scaled to length 1: float32, C-contiguous, the same shape. A row of zeros stays zeros.

    Raises EncoderFailed for a row that is not finite: it would be near nothing, and searches would find nothing.
    """
    values = np.asarray(vectors, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(values, axis=-1, keepdims=True)
    if not np.isfinite(norms).all():
        raise EncoderFailed(
            "the encoder gave a vector that is not finite; its weights are damaged, or the precision in which it "
            "computes does not suffice: try --precision f32"
        )
    return np.ascontiguousarray(values / np.where(norms == 0, 1, norms), dtype=np.float32)
