"""Prepares the inputs of an encoder that runs elsewhere: its tokenizer and its preprocessing, without its towers."""

from collections.abc import Callable, Sequence
from typing import NoReturn

from PIL import Image

from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Preprocessing, Tokens
from clip_retrieval.encoders.languages import Languages
from clip_retrieval.errors import EncoderFailed

BATCHES_AT_ONCE = 4
"""Batches of texts on their way to the encoder. While one is computed the next ones travel and wait there, so that the
encoder never waits for a message."""


class Inputs(Encoder):
    """The description of an encoder and what makes its inputs. Both ``encode`` methods raise EncoderFailed."""

    owns_threads = True
    text_batches_at_once = BATCHES_AT_ONCE

    def __init__(
        self,
        info: EncoderInfo,
        *,
        tokenize: Callable[[str, str | None], Tokens],
        preprocess: Callable[[Image.Image], Pixels],
        languages: Languages | None,
        preprocessing: Preprocessing | None,
    ) -> None:
        """``preprocessing`` is ``preprocess`` if that can be pickled, else None."""
        self.info, self.languages = info, languages
        self._tokenize, self._preprocess, self._preprocessing = tokenize, preprocess, preprocessing

    @classmethod
    def of(cls, encoder: Encoder) -> "Inputs":
        """Those of an encoder that is loaded whole."""
        return cls(
            encoder.info,
            tokenize=encoder.tokenize,
            preprocess=encoder.preprocess,
            languages=encoder.languages,
            preprocessing=encoder.preprocessing,
        )

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        self.check_language(language)
        return self._tokenize(text, language)

    def preprocess(self, image: Image.Image) -> Pixels:
        return self._preprocess(image)

    @property
    def preprocessing(self) -> Preprocessing | None:
        return self._preprocessing

    def encode_tokens(self, texts: Sequence[Tokens]) -> NoReturn:
        raise self._not_here(f"{len(texts)} texts")

    def encode_pixels(self, pixels: Pixels) -> NoReturn:
        raise self._not_here(f"{len(pixels)} images")

    def _not_here(self, what: str) -> EncoderFailed:
        return EncoderFailed(f"{what} are not encoded in this process by {self.info.name}, but by the encoder service")
