"""The inputs of the towers: features that are computed once if a trunk is locked, else pixels and token ids.

Features go into memory-mapped files as they are computed. So a run that was stopped resumes, and the next run with
other settings starts at once. Pixels are decoded beside the training, a batch ahead.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.finetuning.pairs import Batch, Pairs, RowNumbers
from clip_retrieval.finetuning.resumable import ResumableVectors
from clip_retrieval.finetuning.settings import TrainingSettings
from clip_retrieval.finetuning.towers import Tower, Towers
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.verified import decode_verified
from clip_retrieval.parallel import map_ahead
from clip_retrieval.progress import Advance

_BATCH = 32


class TowerInputs:
    """One side of the data, ready for ``towers``. With ``views`` 0 only whole images are used, no crops."""

    def __init__(
        self,
        pairs: Pairs,
        towers: Towers,
        preprocess: Any,
        tokenizer: Any,
        folder: Path,
        limits: Limits,
        *,
        views: int = 0,
        seed: int = 0,
        advance: Advance = lambda _: None,
    ) -> None:
        """``advance`` gets the number of images and captions whose features were just computed."""
        self.pairs, self.views = pairs, views
        self._towers, self._preprocess, self._limits, self._seed = towers, preprocess, limits, seed
        folder.mkdir(parents=True, exist_ok=True)
        self._ids: Tensor = tokenizer(pairs.texts) if pairs.texts else torch.zeros(0, 1, dtype=torch.int64)
        self._images: Vectors | None = None
        self._texts: Vectors | None = None
        if towers.image.keeps_trunk:
            self._images = _features(
                towers.image, self._views, len(pairs) * (views + 1), folder / "images.npy", towers.device, advance
            )
        if towers.text.keeps_trunk:
            self._texts = _features(
                towers.text,
                lambda start, stop: _split(self._ids[start:stop]),
                len(self._ids),
                folder / "texts.npy",
                towers.device,
                advance,
            )

    def vectors(self) -> tuple[Vectors, Vectors]:
        """Unit vectors of all whole images and of all captions; they are not finite if the model has diverged."""
        rows: RowNumbers = np.arange(len(self.pairs))
        whole = np.zeros_like(rows)
        images: Iterator[Tensor]
        if self._images is None:
            images = self._pixels(rows, whole)
        else:
            images = _split(self._kept(self._images, rows * (self.views + 1)))
        texts = self._ids if self._texts is None else torch.from_numpy(np.array(self._texts))
        return _all(self._towers.image, images, self._towers.device), _all(
            self._towers.text, _split(texts), self._towers.device
        )

    def epoch(self, number: int, settings: TrainingSettings) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor]]:
        """The batches of one epoch on the model's device, in the form that ``loop.train`` takes."""
        device = self._towers.device
        for batch in self.pairs.batches(number, settings.batch, self.views, settings.seed):
            if self._images is None:
                images = torch.cat(list(self._pixels(batch.images, batch.views)))
            else:
                images = self._kept(self._images, batch.images * (self.views + 1) + batch.views)
            texts = self._ids[batch.captions] if self._texts is None else self._kept(self._texts, batch.captions)
            described = torch.from_numpy(self.pairs.described(batch.images, batch.captions))
            yield batch, images.to(device), texts.to(device), described.to(device)

    @staticmethod
    def _kept(features: Vectors, rows: RowNumbers) -> Tensor:
        return torch.from_numpy(np.array(features[rows]))

    def _views(self, start: int, stop: int) -> Iterator[Tensor]:
        """Pixels of every view of every image, image by image."""
        numbers = np.arange(start, stop)
        return self._pixels(numbers // (self.views + 1), numbers % (self.views + 1))

    def _pixels(self, rows: RowNumbers, views: RowNumbers) -> Iterator[Tensor]:
        loaded = map_ahead(lambda pair: self._load(*pair), zip(rows, views, strict=True), ahead=2 * _BATCH)
        while batch := list(islice(loaded, _BATCH)):
            yield torch.stack(batch)

    def _load(self, row: int, view: int) -> Tensor:
        image = self.pairs.images[row]
        decoded = decode_verified(image.blob, image.content_hash, self._limits)
        if view:
            decoded = random_crop(decoded, random.Random(f"{self._seed}:{view}:{image.content_hash}"))
        pixels: Tensor = self._preprocess(decoded)
        return pixels


def _split(rows: Tensor) -> Iterator[Tensor]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def random_crop(image: Image.Image, generator: random.Random) -> Image.Image:
    """A crop of 50–95 % of the area, with an aspect ratio at most a quarter away from the original.

    Crops are not mirrored, because captions say left and right.
    """
    area, stretch = generator.uniform(0.5, 0.95) ** 0.5, generator.uniform(0.8, 1.25) ** 0.5
    width = min(image.width, max(1, round(image.width * area * stretch)))
    height = min(image.height, max(1, round(image.height * area / stretch)))
    left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


@torch.no_grad()
def _features(
    tower: Tower,
    batches: Callable[[int, int], Iterator[Tensor]],
    rows: int,
    path: Path,
    device: str,
    advance: Advance,
) -> Vectors:
    """The features of inputs 0 to ``rows`` in the locked part of ``tower``; ``batches(start, stop)`` gives inputs."""
    probe = next(batches(0, min(1, rows)), None)
    width = 1 if probe is None else tower.frozen(probe.to(device)).shape[1]
    kept = ResumableVectors(path, rows, width)
    advance(kept.done)
    for batch in batches(kept.done, rows):
        kept.append(tower.frozen(batch.to(device)).float().cpu().numpy())
        advance(len(batch))
    return kept.finish()


@torch.no_grad()
def _all(tower: Tower, batches: Iterator[Tensor], device: str) -> Vectors:
    parts = [tower.live(batch.to(device)).float().cpu().numpy() for batch in batches]
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)
