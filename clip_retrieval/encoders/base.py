"""The seam between the product and its models: what an encoder is, whatever runs it.

An encoder maps texts and images into one space of unit float32 vectors, so that an inner product is a cosine.
Work that belongs to one text (``tokenize``) or to one image (``preprocess``) is apart from work that is done on a
batch (``encode_tokens``, ``encode_pixels``), so that a server can do it beside the model and never in front of it.
Implementations are interchangeable files beside this one; this file knows none of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

Vectors: TypeAlias = NDArray[np.float32]
"""Shape (n, dim), float32, each row of unit length."""

Pixels: TypeAlias = NDArray[np.float32]
"""Shape (n, 3, height, width) or, for one image, (3, height, width); float32, normalised as the model wants."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as a model reads it. Texts with the same tokens have the same vector."""

    ids: tuple[int, ...]
    """Special tokens included, no more than the model's context holds."""
    is_cut: bool
    """Whether the text has more tokens than the context holds, so that its end is not read."""


class EncoderInfo(BaseModel):
    """What a manifest says of the encoder that made its vectors."""

    model_config = ConfigDict(frozen=True)

    name: str
    """As a person names it: ``demo``, ``ViT-B-32 (laion2b_s34b_b79k)``."""
    runtime: Literal["torch", "openvino", "fake"]
    """Which implementation loads the encoder's files."""
    precisions: tuple[Literal["f32", "int8"], ...] = ("f32",)
    """Which weights the encoder's files hold."""
    dim: int
    """Dimension of the vectors."""
    context_length: int
    """How many tokens of a text the model reads, start and end tokens included."""
    image_size: tuple[int, int]
    """Height and width of the pixels that the model takes."""
    logit_scale: float
    """The trained factor (already exponentiated) between a cosine and a logit."""
    fingerprint: str
    """Hex SHA-256 that names the weights, the tokenizer and the preprocessing. Vectors of encoders with different
    fingerprints must never meet in one index."""


class Encoder(ABC):
    """Texts and images to unit vectors. Safe to call from several threads."""

    info: EncoderInfo
    text_batches_at_once: int = 1
    """How many batches of texts a server had best encode at the same time, each in a thread of its own."""

    @abstractmethod
    def tokenize(self, text: str) -> Tokens:
        """Clean, split and cut one text as the model wants it."""

    @abstractmethod
    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        """Encode tokenised texts as one batch. Shape (len(texts), dim)."""

    def prepare_tokens(self, texts: Sequence[Tokens]) -> Callable[[], Vectors]:
        """A function that returns what ``encode_tokens`` does and may be called in another thread.

        Python's own work on the batch is done when this returns, as far as an implementation can.
        """
        return partial(self.encode_tokens, texts)

    @abstractmethod
    def preprocess(self, image: Image.Image) -> Pixels:
        """Resize, crop and normalise one RGB image. Shape (3, height, width)."""

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
    """Scale each row to length 1, float32, C-contiguous. A row of zeros stays zeros. Shape kept."""
    values = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.ascontiguousarray(values / np.where(norms == 0, 1, norms), dtype=np.float32)
