"""The reference encoder: any open_clip model on torch, on a CPU or a GPU, in float32.

It loads a self-contained folder, which ``models/local_dir.py`` makes of a model.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from clip_retrieval.cores import usable_cores
from clip_retrieval.encoders.base import Encoder, EncoderInfo, Pixels, Tokens, Vectors, unit_rows
from clip_retrieval.encoders.languages import languages_of
from clip_retrieval.encoders.open_clip import open_folder


class TorchEncoder(Encoder):
    """An open_clip model in evaluation mode. Texts are padded to the whole context, as open_clip does."""

    def __init__(self, info: EncoderInfo, model: Any, preprocess: Any, tokenizer: Any, device: str) -> None:
        self.info = info
        self._model = model.eval().to(device)
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._tokenizing = threading.Lock()  # Hugging Face tokenizers keep the length of the last call as state
        self._device = device
        backend = getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None)
        self.languages = None if backend is None else languages_of(backend)

    @classmethod
    def load(cls, folder: Path, info: EncoderInfo, *, threads: int | None = None, device: str | None = None) -> Self:
        """Load a prepared folder onto ``device``, by default the first GPU, or the CPU if there is none.

        ``threads`` is by default all usable cores. Raises ModelUnavailable.
        """
        torch.set_num_threads(threads or usable_cores())
        model, preprocess, tokenizer = open_folder(folder)
        return cls(info, model, preprocess, tokenizer, device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        self.check_language(language)
        # With room for one more token, the last position is padding unless the text needs it.
        with self._tokenizing:
            longer = self._tokenizer([text, ""], context_length=self.info.context_length + 1)
            (ids,) = self._tokenizer([text]).tolist()
        if language is not None and self.languages is not None:
            ids = self.languages.marked(tuple(ids), language)
        return Tokens(tuple(ids), is_cut=bool(longer[0, -1] != longer[1, -1]))

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        if not texts:
            return np.empty((0, self.info.dim), dtype=np.float32)
        return self._encode(torch.tensor([text.ids for text in texts]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        with self._tokenizing:
            tokens = self._tokenizer(list(texts))  # without finding out which texts are cut
        return self._encode(tokens)

    def _encode(self, tokens: torch.Tensor) -> Vectors:
        with torch.inference_mode():
            return unit_rows(self._model.encode_text(tokens.to(self._device), normalize=True).cpu().numpy())

    def preprocess(self, image: Image.Image) -> Pixels:
        pixels: Pixels = self._preprocess(image).numpy()
        return pixels

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self._device)
            return unit_rows(self._model.encode_image(batch, normalize=True).cpu().numpy())
