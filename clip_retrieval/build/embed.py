"""Bulk embedding: batched, resumable, in bounded memory, with decoding beside the encoder.

Vectors go straight into a memory-mapped ``.npy`` file, row by row in the order of the input. A small file beside it
counts the rows that are done, so that a build which was killed goes on where it was. Row *i* of the file is item *i*
of the input, always: an item that cannot be embedded ends the run, it is never skipped.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from clip_retrieval.atomic import new_file
from clip_retrieval.encoders.base import Encoder, Pixels, Vectors
from clip_retrieval.images.decode import Limits, decode_again
from clip_retrieval.parallel import map_ahead
from clip_retrieval.progress import Advance
from clip_retrieval.records import ValidImage

TEXT_BATCH, IMAGE_BATCH = 64, 32


def embed_texts(
    texts: Sequence[str],
    encoder: Encoder,
    out: Path,
    *,
    batch_size: int = TEXT_BATCH,
    advance: Advance = lambda _: None,
) -> Vectors:
    """Encode ``texts`` into the file ``out``; returns it memory-mapped, float32 (len(texts), dim)."""
    vectors = ResumableVectors(out, len(texts), encoder.info.dim)
    advance(vectors.done)
    for start in range(vectors.done, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        vectors.append(encoder.encode_texts(batch))
        advance(len(batch))
    return vectors.finish()


def embed_images(
    images: Sequence[ValidImage],
    encoder: Encoder,
    out: Path,
    *,
    limits: Limits,
    batch_size: int = IMAGE_BATCH,
    advance: Advance = lambda _: None,
) -> Vectors:
    """Encode the images' files into the file ``out``; returns it memory-mapped, float32 (len(images), dim).

    Raises SourceError when a file is no longer the image that was validated.
    """
    vectors = ResumableVectors(out, len(images), encoder.info.dim)
    advance(vectors.done)

    def load(image: ValidImage) -> Pixels:
        return encoder.preprocess(decode_again(image, limits))

    decoded = map_ahead(load, images[vectors.done :], ahead=2 * batch_size)
    while batch := list(islice(decoded, batch_size)):
        vectors.append(encoder.encode_pixels(np.stack(batch)))
        advance(len(batch))
    return vectors.finish()


class ResumableVectors:
    """A memory-mapped float32 array of ``rows`` by ``dim`` that is filled from the top and knows how far it is."""

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        self._path = path
        self._counter = path.with_suffix(".done")
        self.rows = rows
        self.done = 0
        if path.exists() and self._counter.exists():
            self._array = np.lib.format.open_memmap(path, mode="r+")
            if self._array.shape == (rows, dim) and self._array.dtype == np.float32:
                self.done = min(int(self._counter.read_text() or 0), rows)
                return
        self._counter.unlink(missing_ok=True)  # before the rows that it counted are gone
        self._array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
        self._save_counter()

    def append(self, batch: Vectors) -> None:
        """Write the next ``len(batch)`` rows, then count them: a kill in between costs one batch."""
        self._array[self.done : self.done + len(batch)] = batch
        self._array.flush()
        self.done += len(batch)
        self._save_counter()

    def finish(self) -> Vectors:
        """The whole array, for reading. Raises ValueError if rows are missing."""
        if self.done != self.rows:
            raise ValueError(f"{self.done} of {self.rows} rows were embedded")
        array: Vectors = np.load(self._path, mmap_mode="r") if self.rows else np.asarray(self._array)
        return array

    def _save_counter(self) -> None:
        with new_file(self._counter, replace=True) as file:
            file.write(str(self.done).encode())
