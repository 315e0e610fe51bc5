"""Build time: what torch float32 says of some texts and pictures, to judge exported graphs by."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from PIL import Image

from clip_retrieval.encoders.base import Pixels, Vectors
from clip_retrieval.encoders.openvino import Check
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.encoders.tokenizer import Tokenizer

PROBES = ("", "a", "a photo of a cat", "Two brown dogs run across a wet meadow, chasing a red ball!", "one word " * 200)
"""Texts from the shortest to one beyond any context."""

OWN_TEXTS = 27
OWN_IMAGES = 8
"""So many of the caller's texts are added to the probes, and of its pictures taken in place of noise."""


class Reference:
    """Inputs and the unit vectors that the untouched open_clip model gives for them."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        images: Sequence[Image.Image],
        texts: Sequence[str],
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, size=(3, *preprocess.height_width, 3), dtype=np.uint8)
        pictures = images[:OWN_IMAGES] or [Image.fromarray(one) for one in noise]
        self.pixels: Pixels = np.stack([preprocess(picture) for picture in pictures])
        self.ids = tokenizer.encode([*PROBES, *texts[:OWN_TEXTS]])
        self.full_ids = tokenizer.pad(self.ids, tokenizer.rules.context_length)
        self._pad = tokenizer.pad
        with torch.inference_mode():
            self._images: Vectors = model.encode_image(torch.from_numpy(self.pixels), normalize=True).numpy()
            self._texts: Vectors = model.encode_text(torch.from_numpy(self.full_ids), normalize=True).numpy()

    def check_image(self, graph: openvino.Model) -> Check:
        """Compare an image tower, both one by one and as a batch."""
        run = _compile(graph)
        return _compare([(run(self.pixels), self._images), (run(self.pixels[:1]), self._images[:1])])

    def check_text(self, graph: openvino.Model, length: Literal["longest", "full"]) -> Check | None:
        """Compare a text tower under a length rule. None if it cannot run on such lengths at all."""
        run = _compile(graph)
        if length == "full":
            return _compare([(run(self.full_ids), self._texts), (run(self.full_ids[:1]), self._texts[:1])])
        try:
            alone = [(run(self._pad([ids])), self._texts[[row]]) for row, ids in enumerate(self.ids)]
            mixed = [(run(self._pad(self.ids[:end])), self._texts[:end]) for end in range(2, len(self.ids) + 1, 2)]
        except RuntimeError:
            return None
        return _compare([*alone, *mixed])


def _compile(graph: openvino.Model) -> Any:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(graph, "CPU", exact)

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = compiled([batch])[0]
        return output

    return run


def _compare(pairs: Sequence[tuple[Vectors, Vectors]]) -> Check:
    got, expected = (np.concatenate(side) for side in zip(*pairs, strict=True))
    cosines = (got * expected).sum(axis=1)
    return Check(
        inputs=len(got),
        min_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        max_difference=float(np.abs(got - expected).max()),
    )
