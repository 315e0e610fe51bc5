"""Vectors by the same model on a GPU, held against the encoder that serves.

A GPU embeds a large collection, and CPUs serve it with another runtime and precision. Then queries and images are
encoded by two programs, so a sample is encoded by both before anything else, and must agree. What made the vectors is
part of the artifact's version, because other vectors make another artifact.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from clip_retrieval.build.check import calibration
from clip_retrieval.datasets.base import Source
from clip_retrieval.encoders import load_encoder, load_on_gpu, read_info
from clip_retrieval.encoders.accelerator import Precision
from clip_retrieval.encoders.base import LEAST_COSINE, Encoder, Vectors
from clip_retrieval.errors import EncoderFailed, ModelUnavailable
from clip_retrieval.images.decode import Limits

SAMPLE = 32
"""Images, and captions, that both encode."""
GPU_BATCH = 512
"""Several parts of ``encoders/torch.py``, so that copies overlap with work."""


@dataclass(frozen=True)
class Maker:
    """What makes the vectors of a build instead of the encoder of the artifact."""

    load: Callable[[], Encoder]
    """Loads another runtime of the same model."""
    how: str
    """What it is, for the manifest. Vectors that were made in another way are not reused."""
    batch: int
    """Images, or captions, that it gets at once."""


def gpu_maker(reference: Path, precision: Precision) -> Maker:
    """The reference encoder in the folder ``reference`` on the GPU, in this precision."""
    return Maker(partial(load_on_gpu, reference, precision), f"torch in {precision} on a GPU", GPU_BATCH)


def checked(maker: Maker, serving: Path, source: Source, limits: Limits, note: Callable[[str], None]) -> Encoder:
    """Load what ``maker`` means, after a comparison with the encoder in the folder ``serving``.

    Both encode a sample of the source; ``note`` gets how near they are, a sentence. Raises EncoderFailed if they are
    not, ModelUnavailable or MissingExtra.
    """
    encoder, info = maker.load(), read_info(serving)
    if encoder.info.fingerprint != info.fingerprint:
        raise ModelUnavailable(f"{maker.how} runs {encoder.info.name}, which is another model than {info.name}")
    images, texts = calibration(source, limits, SAMPLE)
    said = []
    for what, mine, its in _compared(encoder, load_encoder(serving, precision="f32"), images, texts):
        least = least_cosine(mine, its)
        if not least >= LEAST_COSINE:  # true for NaN, too
            raise EncoderFailed(
                f"{maker.how}, {info.name} gives other vectors of {what} than the encoder that serves: the least "
                f"cosine is {least:.4f}, and at least {LEAST_COSINE} is needed; use --device cuda-f32, or leave "
                f"--device out"
            )
        said.append(f"{least:.5f} over {what}")
    note(f"vectors by {maker.how}; the least cosine to those of the encoder that serves: {' and '.join(said)}")
    return encoder


def _compared(
    encoder: Encoder, judge: Encoder, images: list[Image.Image], texts: list[str]
) -> Iterator[tuple[str, Vectors, Vectors]]:
    """What was encoded by both, and the vectors of each."""
    if images:
        yield f"{len(images)} images", encoder.encode_images(images), judge.encode_images(images)
    if texts:
        yield f"{len(texts)} captions", encoder.encode_texts(texts), judge.encode_texts(texts)


def least_cosine(left: Vectors, right: Vectors) -> float:
    """The least cosine between equal rows of unit vectors, float32 (n, dim)."""
    return float(np.einsum("nd,nd->n", left, right).min())
