"""An encoder for tests, with colours instead of weights, whose vectors can be computed by hand.

Eight dimensions stand for the corners of the RGB cube (black … white), eight more for all other words. The vector of an
image holds the trilinear weights of the corners at its mean colour. The vector of a text holds 1 for each colour word
and ``WORD_WEIGHT`` in a hashed dimension for each other word. So "a red square" finds the reddest image.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Preprocessing, Tokens, Vectors, unit_rows

COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
"""Colour i is the corner of the cube whose (red, green, blue) are the bits of i."""

SIZE = 8
CONTEXT = 16
WORD_WEIGHT = 0.25


class FakeEncoder(Encoder):
    """Deterministic colour encoder. ``seed`` changes only the fingerprint."""

    def __init__(self, seed: int = 0) -> None:
        self.info = EncoderInfo(
            name="fake",
            runtime="fake",
            dim=2 * len(COLOURS),
            context_length=CONTEXT,
            image_size=(SIZE, SIZE),
            logit_scale=10.0,
            fingerprint=hashlib.sha256(f"fake encoder {seed}".encode()).hexdigest(),
        )

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        self.check_language(language)
        ids = [_axis(word) for word in re.findall(r"\w+", text.lower())]
        return Tokens(tuple(ids[:CONTEXT]), len(ids) > CONTEXT)

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        vectors = np.zeros((len(texts), self.info.dim), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for axis in text.ids:
                vector[axis] += 1 if axis < len(COLOURS) else WORD_WEIGHT
            if not vector.any():
                vector[-1] = 1
        return unit_rows(vectors)

    def preprocess(self, image: Image.Image) -> Pixels:
        return mean_colours(image)

    @property
    def preprocessing(self) -> Preprocessing:
        return mean_colours

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        red, green, blue = pixels.mean(axis=(2, 3)).T
        vectors = np.zeros((len(pixels), self.info.dim), dtype=np.float32)
        for corner in range(len(COLOURS)):
            vectors[:, corner] = (
                np.where(corner & 4, red, 1 - red)
                * np.where(corner & 2, green, 1 - green)
                * np.where(corner & 1, blue, 1 - blue)
            )
        return unit_rows(vectors)


def mean_colours(image: Image.Image) -> Pixels:
    """The mean colours of a grid of the image, from 0 to 1: float32, shape (3, SIZE, SIZE)."""
    small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / np.float32(255))


def _axis(word: str) -> int:
    if word in COLOURS:
        return COLOURS.index(word)
    return len(COLOURS) + hashlib.sha256(word.encode()).digest()[0] % len(COLOURS)
