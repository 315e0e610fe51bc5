"""The collections of the benchmarks: CLIP-like vectors, and real caption texts.

Vectors are synthetic, since the speed of a search does not depend on what they mean but does on how they lie:

- spectrum: the variance along the n-th axis falls as 1/n, as it does in networks that represent images well (Agrawal
  et al., 2022, arXiv:2202.05808; Stringer et al., 2019, Nature 571, on the visual cortex). Of 512 axes that leaves an
  effective number of 28: (sum of variances)² / sum of squared variances;
- clusters: 300 centres that make up half of the variance of what images mean;
- modality gap: images and captions lie on two sides of the origin along one random direction, apart as in CLIP (Liang
  et al., 2022, arXiv:2203.02053);
- a caption means what its image means and adds noise of 1.2 times the image's own spread, so that the ten nearest
  images of a caption differ from those of its image.

Everything is drawn block by block from a seed, so that a million rows need no more memory than one block.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.records import CaptionRecord, ImageRecord

IMAGES, CAPTIONS_EACH = 8091, 5
SPECTRUM, CLUSTERS, GAP, CAPTION_NOISE = 0.5, 300, 0.6, 1.2
"""The spread along the n-th axis is n to the power of -SPECTRUM; the others are in units of what an image means."""
BLOCK = 65_536


def clip_like(images: int, captions_each: int, dim: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Unit vectors of images (images, dim) and of captions (images * captions_each, dim), in image order."""
    blocks = list(clip_like_blocks(images, captions_each, dim, seed))
    return np.concatenate([image_vectors for image_vectors, _ in blocks]), np.concatenate(
        [captions for _, captions in blocks]
    )


def clip_like_blocks(images: int, captions_each: int, dim: int, seed: int = 0) -> Iterator[tuple[Vectors, Vectors]]:
    """The same, of at most ``BLOCK`` images at a time."""
    scale = (np.arange(1, dim + 1) ** -SPECTRUM).astype(np.float32)
    shared = np.random.default_rng(seed)
    centres = shared.standard_normal((CLUSTERS, dim), dtype=np.float32) * scale
    gap = unit_rows(shared.standard_normal((1, dim))) * (GAP * np.sqrt(2 * (scale**2).sum()))
    for number, start in enumerate(range(0, images, BLOCK)):
        rng = np.random.default_rng((seed, number))
        rows = min(BLOCK, images - start)
        meaning = centres[rng.integers(CLUSTERS, size=rows)]
        meaning += rng.standard_normal((rows, dim), dtype=np.float32) * scale
        noise = rng.standard_normal((rows * captions_each, dim), dtype=np.float32) * (CAPTION_NOISE * scale)
        yield unit_rows(meaning + gap), unit_rows(np.repeat(meaning, captions_each, axis=0) + noise - gap)


def write_clip_like(
    folder: Path, images: int, queries: int, dim: int, *, advance: Callable[[int], None] = lambda _: None, seed: int = 0
) -> None:
    """Write ``images.npy`` and, of images spread over all of them, ``queries`` caption vectors to ``captions.npy``.

    Through memory maps; ``advance`` is told the number of images just written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = np.lib.format.open_memmap(folder / "images.npy.partial", "w+", np.float32, (images, dim))
    asked = np.linspace(0, images - 1, queries).astype(np.int64)
    captions, start = [], 0
    for image_vectors, texts in clip_like_blocks(images, 1, dim, seed):
        shown[start : start + len(image_vectors)] = image_vectors
        here = asked[(asked >= start) & (asked < start + len(image_vectors))]
        captions.append(texts[here - start])
        start += len(image_vectors)
        advance(len(image_vectors))
    shown.flush()
    np.save(folder / "captions.npy", np.concatenate(captions))
    (folder / "images.npy.partial").rename(folder / "images.npy")


def sample_captions(sample: Path) -> list[str]:
    """The captions of the bundled photographs."""
    with (sample / "captions.csv").open(newline="", encoding="utf-8") as file:
        return [row["caption"] for row in csv.DictReader(file)]


def queries(captions: list[str], count: int, seed: int = 0) -> list[str]:
    """``count`` different texts as long as real captions: thirds of three captions each, so no cache can help."""
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
    """Records for the vectors, with real caption texts and two fields: a category of ten and a year of forty.

    Both are drawn by a fixed seed and have nothing to do with the vectors.
    """
    drawn = np.random.default_rng(0).integers((10, 40), size=(images, 2)).tolist()
    image_records = [
        ImageRecord(
            row,
            f"{row}",
            f"{row}.jpg",
            f"{row:064x}",
            500,
            375,
            "train",
            {"category": f"c{category}", "year": 1980 + year},
        )
        for row, (category, year) in enumerate(drawn)
    ]
    texts = [
        CaptionRecord(row, f"{row}", row // captions_each, captions[row % len(captions)])
        for row in range(images * captions_each)
    ]
    return image_records, texts
