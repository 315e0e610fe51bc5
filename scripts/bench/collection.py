"""The collection of the serving benchmark: as many rows as Flickr8k has, CLIP-like vectors, real caption texts.

Vectors are synthetic, since the speed of a search does not depend on what they mean but does on how they lie: a
power-law spectrum, clusters, and two modalities that lie apart, as CLIP's do (Liang et al., 2022, arXiv:2203.02053).
"""

import csv
from pathlib import Path

import numpy as np

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.records import CaptionRecord, ImageRecord

IMAGES, CAPTIONS_EACH = 8091, 5
SPECTRUM, CLUSTERS, GAP = 0.5, 300, 0.6


def clip_like(images: int, captions_each: int, dim: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Unit vectors of pictures (images, dim) and of captions (images * captions_each, dim), in picture order."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, dim + 1) ** -SPECTRUM

    def noise(rows: int) -> Vectors:
        return (rng.standard_normal((rows, dim)) * scale).astype(np.float32)

    meaning = noise(CLUSTERS)[rng.integers(CLUSTERS, size=images)] + noise(images)
    gap = rng.standard_normal(dim)
    gap *= GAP * np.linalg.norm(meaning, axis=1).mean() / np.linalg.norm(gap)
    pictures = unit_rows(meaning + gap)
    captions = unit_rows(np.repeat(meaning, captions_each, axis=0) + 1.2 * noise(images * captions_each) - gap)
    return pictures, captions


def sample_captions(sample: Path) -> list[str]:
    """The captions of the bundled photographs."""
    with (sample / "captions.csv").open(newline="", encoding="utf-8") as file:
        return [row["caption"] for row in csv.DictReader(file)]


def queries(captions: list[str], count: int, seed: int = 0) -> list[str]:
    """``count`` distinct texts as long as real captions, of thirds of three captions each: no cache can help."""
    rng = np.random.default_rng(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        first, second, third = (captions[i].split() for i in rng.integers(len(captions), size=3))
        thirds = (
            first[: len(first) // 3 + 1],
            second[len(second) // 3 : 2 * len(second) // 3],
            third[2 * len(third) // 3 :],
        )
        made[" ".join(word for part in thirds for word in part)] = None
    return list(made)


def records(captions: list[str], images: int, captions_each: int) -> tuple[list[ImageRecord], list[CaptionRecord]]:
    """Records for the vectors, with real caption texts."""
    pictures = [ImageRecord(row, f"{row}", f"{row}.jpg", f"{row:064x}", 500, 375, "train", {}) for row in range(images)]
    texts = [
        CaptionRecord(row, f"{row}", row // captions_each, captions[row % len(captions)])
        for row in range(images * captions_each)
    ]
    return pictures, texts
