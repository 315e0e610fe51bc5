"""Vectors of a source that has no images: they are read, made unit vectors, and kept as if an encoder had made them."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.build.captions import check_captions, with_unique_ids
from clip_retrieval.build.embed import Embedder
from clip_retrieval.build.report import Report
from clip_retrieval.build.vector_cache import caption_key, image_key
from clip_retrieval.datasets.stored import StoredFile
from clip_retrieval.datasets.vector_row import VectorRow
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import SourceError
from clip_retrieval.progress import Advance
from clip_retrieval.records import CaptionedImage, Reject, ValidImage

BLOCK_ROWS = 4096
LEAST_NORM = 1e-6
"""A shorter vector has no direction."""


def take_vectors(
    items: Sequence[CaptionedImage | Reject], embedder: Embedder, dim: int, advance: Advance = lambda _: None
) -> Report:
    """Give ``embedder`` the vectors of ``items``; returns what was kept.

    The content hash of an image is that of its vector. Its size is 0, since it is not known. The first caption of an
    image has the vector of the source, if there is one; equal captions have the vector of the first of them. A vector
    that is not finite, or has no length, is a Reject. Raises SourceError for files that do not fit each other or
    ``dim``.
    """
    rejects = [item for item in items if isinstance(item, Reject)]
    kept: list[ValidImage] = []
    for block in _blocks([item for item in items if isinstance(item, CaptionedImage)]):
        rows = [_row_of(item) for item in block]
        vectors, good = _unit(rows[0].vectors, rows, dim)
        hashes = [hashlib.sha256(vector.tobytes()).hexdigest() for vector in vectors]
        embedder.take("images", [image_key(one) for one in hashes], vectors)
        text = None if rows[0].text is None else _unit(rows[0].text, rows, dim)
        texts: dict[bytes, int] = {}
        for place, item in enumerate(block):
            if not good[place]:
                rejects.append(
                    Reject(f"{rows[place].vectors.name} row {rows[place].row + 1}", "the vector is not finite, or zero")
                )
                continue
            captions, empty = check_captions(item)
            rejects += empty
            if text is not None and captions and text[1][place]:
                texts.setdefault(caption_key(captions[0].text), place)
            kept.append(
                ValidImage(
                    image_id=item.image_id,
                    blob=item.blob,
                    content_hash=hashes[place],
                    width=0,
                    height=0,
                    captions=tuple(captions),
                    split=item.split,
                    metadata=item.metadata,
                )
            )
        if text is not None:
            embedder.take("captions", list(texts), text[0][list(texts.values())])
        advance(len(block))
    return Report(with_unique_ids(kept), rejects)


def _blocks(items: Sequence[CaptionedImage]) -> Iterator[list[CaptionedImage]]:
    """Items of one file of vectors, at most ``BLOCK_ROWS`` at a time."""
    for _, group in groupby(items, key=lambda item: _row_of(item).vectors.name):
        of_file = list(group)
        for start in range(0, len(of_file), BLOCK_ROWS):
            yield of_file[start : start + BLOCK_ROWS]


def _row_of(item: CaptionedImage) -> VectorRow:
    assert isinstance(item.blob, VectorRow), "the source gives vectors"
    return item.blob


def _unit(file: StoredFile, rows: Sequence[VectorRow], dim: int) -> tuple[Vectors, NDArray[np.bool_]]:
    """The unit vectors of these rows, float32 (rows, dim), and which of them have a direction."""
    if not isinstance(file.path, Path):
        raise SourceError(f"{file.name} is in a store; copy files of vectors to this machine first")
    try:
        stored = np.load(file.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{file.name} is not an array of numpy: {error}") from error
    if stored.ndim != 2 or stored.shape[1] != dim or stored.dtype.kind != "f":
        raise SourceError(
            f"{file.name} has {stored.dtype} of shape {stored.shape}; the model has vectors of {dim} dimensions:"
            " give the model that made these vectors"
        )
    if len(stored) != rows[0].rows:
        raise SourceError(f"{file.name} has {len(stored)} vectors, but its metadata has {rows[0].rows} rows")
    vectors = np.asarray(stored[[row.row for row in rows]], dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    good: NDArray[np.bool_] = np.isfinite(norms) & (norms > LEAST_NORM)
    vectors[~good] = 0
    return np.ascontiguousarray(vectors / np.where(good, norms, 1)[:, None], dtype=np.float32), good
