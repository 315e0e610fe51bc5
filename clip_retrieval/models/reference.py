"""Build time: the vectors of torch in float32 for some texts and images, with which exported graphs are compared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clip_retrieval.encoders.base import Pixels, Vectors
from clip_retrieval.encoders.openvino.layouts import GraphInputs, Layout, text_batch
from clip_retrieval.encoders.openvino.runtime import openvino
from clip_retrieval.encoders.openvino.spec import Check
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.encoders.tokenizer import Tokenizer

PROBES = (
    "",
    "a",
    "a photo of a cat",
    "a photo of a cat and a dog",
    "a photo of a dog",
    "Two brown dogs run across a wet meadow, chasing a red ball!",
    "one word " * 200,
)
"""Texts from the empty one to one beyond any context; some begin with the same words."""

OWN_TEXTS = 27
OWN_IMAGES = 8
"""The number of the caller's texts that are added to the probes, and of its images that are used instead of noise."""


class Reference:
    """Inputs, and their unit vectors from the original open_clip model."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        images: Sequence[Image.Image],
        texts: Sequence[str],
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, size=(3, *preprocess.height_width, 3), dtype=np.uint8)
        samples = images[:OWN_IMAGES] or [Image.fromarray(one) for one in noise]
        self.pixels: Pixels = np.stack([preprocess(sample) for sample in samples])
        self._ids = sorted(tokenizer.tokenize(text).ids for text in (*PROBES, *texts[:OWN_TEXTS]))
        self._tokenizer = tokenizer
        (full,) = self.text_batch("full", range(len(self._ids)))
        with torch.inference_mode():
            self._images: Vectors = model.encode_image(torch.from_numpy(self.pixels), normalize=True).numpy()
            self._texts: Vectors = model.encode_text(torch.from_numpy(full), normalize=True).numpy()

    def check_image(self, graph: openvino.Model) -> Check:
        """The comparison of an image tower, for a batch and for a single image."""
        run = _compile(graph)
        return _compare([(run(self.pixels), self._images), (run(self.pixels[:1]), self._images[:1])])

    def text_batch(self, layout: Layout, rows: Sequence[int]) -> GraphInputs:
        """The inputs of a text tower for the texts with the numbers ``rows``, which ascend."""
        return text_batch(self._tokenizer, layout, [self._ids[row] for row in rows])

    def check_text(self, graph: openvino.Model, layout: Layout) -> Check | None:
        """The comparison of a text tower that gets its texts in ``layout``; None if it cannot run on that layout."""
        run, every = _compile(graph), list(range(len(self._ids)))
        if layout == "full":
            batches = [every, every[:1]]
        else:
            batches = [*([row] for row in every), *(every[:end] for end in range(len(every), 1, -2))]
        try:
            return _compare([(run(*self.text_batch(layout, rows)), self._texts[rows]) for rows in batches])
        except RuntimeError:
            return None


def _compile(graph: openvino.Model) -> Any:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(graph, "CPU", exact)

    def run(*batch: NDArray[Any]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = compiled(batch)[0]
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
