"""Vectors for the images and captions of a source: each distinct image and caption is encoded once.

A vector comes from the cache of a build that was killed, from a known artifact, or from the encoder. Vectors are kept
by content, so the order of the rows does not depend on where they come from. The result has the same bytes in each
case, as far as the encoder gives the same vector for the same input in every batch.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from clip_retrieval.build.captions import with_unique_ids
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.report import Report
from clip_retrieval.build.seen_files import ImageFacts, SeenFiles, look_at
from clip_retrieval.build.thumbnails import ThumbnailCache
from clip_retrieval.build.validate import validate_each
from clip_retrieval.build.vector_cache import GATHER_ROWS, VectorCache, caption_key, image_key
from clip_retrieval.encoders.base import Encoder, Pixels, Vectors
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import Thumbnail
from clip_retrieval.progress import Advance
from clip_retrieval.records import CaptionedImage, CaptionRecord, ImageBlob, ImageRecord, Modality, Reject, ValidImage

TEXT_BATCH, IMAGE_BATCH = 64, 32


@dataclass(frozen=True, slots=True)
class EmbeddingCounts:
    """Where the vectors of a collection come from, counted in rows.

    An ``encoded`` row went through the encoder in this run. A ``reused`` row has the vector of an equal image or
    caption, of a run that was killed, or of an earlier artifact.
    """

    images_encoded: int
    images_reused: int
    captions_encoded: int
    captions_reused: int

    def __str__(self) -> str:
        return (
            f"vectors of {self.images_encoded} images and {self.captions_encoded} captions were encoded, "
            f"of {self.images_reused} images and {self.captions_reused} captions reused"
        )


class Embedder:
    """An encoder and its two caches. The encoder is loaded when the first item needs it, which may be never."""

    def __init__(
        self, load: Callable[[], Encoder], dim: int, work: Path, known: KnownArtifacts, batch: int = IMAGE_BATCH
    ) -> None:
        """``load`` loads the encoder of dimension ``dim``. ``work`` is a folder for vectors of this encoder alone.

        ``batch`` is the number of images that are encoded together; of captions it is at least ``TEXT_BATCH``.
        """
        self._load, self._known, self.batch = load, known, batch
        self._encoder: Encoder | None = None
        self._loading = threading.Lock()
        self._caches: dict[Modality, VectorCache] = {
            "images": VectorCache(work, "images", dim),
            "captions": VectorCache(work, "captions", dim),
        }
        self._encoded: dict[Modality, int] = {"images": 0, "captions": 0}

    def close(self) -> None:
        """Close the files of the caches."""
        for cache in self._caches.values():
            cache.close()

    def encoder(self) -> Encoder:
        """The encoder. Safe in any thread. Raises ModelUnavailable or MissingExtra."""
        with self._loading:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def needs(self, modality: Modality, key: bytes) -> bool:
        """Whether the encoder must make the vector of ``key``. Safe in any thread."""
        return key not in self._caches[modality] and not self._known.has(modality, key)

    def take(self, modality: Modality, keys: Sequence[bytes], vectors: Vectors, *, encoded: bool = False) -> None:
        """Keep unit vectors (len(keys), dim) that were made elsewhere; those of kept keys are left out.

        With ``encoded`` they count as encoded in this run: the encoder made them for it in another process.
        """
        new = {key: row for row, key in reversed([*enumerate(keys)]) if key not in self._caches[modality]}
        if new:  # adding waits for the disk
            self._caches[modality].add(list(new), vectors[list(new.values())])
            self._encoded[modality] += len(new) if encoded else 0

    def add_images(self, pixels: dict[bytes, Pixels]) -> None:
        """Encode images, given by key, as one batch."""
        self._add("images", list(pixels), self.encoder().encode_pixels(np.stack(list(pixels.values()))))

    def embed_captions(self, texts: Sequence[str], advance: Advance = lambda _: None) -> None:
        """Encode the texts that need it. ``advance`` gets the number of texts that have a vector."""
        distinct = {caption_key(text): text for text in texts}
        missing = [(key, text) for key, text in distinct.items() if self.needs("captions", key)]
        advance(len(texts) - len(missing))
        step = max(TEXT_BATCH, self.batch)
        for start in range(0, len(missing), step):
            keys, batch = zip(*missing[start : start + step], strict=True)
            self._add("captions", keys, self.encoder().encode_texts(batch))
            advance(len(batch))

    def gather(self, modality: Modality, keys: Sequence[bytes], out: Path) -> Vectors:
        """Write the vectors of ``keys``, in this order, to the ``.npy`` file ``out``; returns it memory-mapped.

        Raises KeyError for a key that has none.
        """
        cache = self._caches[modality]
        unknown = (key for key in dict.fromkeys(keys) if key not in cache)
        while block := list(islice(unknown, GATHER_ROWS)):
            cache.add(block, self._known.vectors(modality, block))
        return cache.gather(keys, out)

    def gather_images(self, images: Iterable[ImageRecord], out: Path) -> Vectors:
        """Write the vectors of the images, in this order, to the ``.npy`` file ``out``; returns it memory-mapped."""
        return self.gather("images", [image_key(image.content_hash) for image in images], out)

    def gather_captions(self, captions: Iterable[CaptionRecord], out: Path) -> Vectors:
        """Write the vectors of the captions, in this order, to the ``.npy`` file ``out``; returns it memory-mapped."""
        return self.gather("captions", [caption_key(caption.text) for caption in captions], out)

    def counts(self, report: Report) -> EmbeddingCounts:
        """Where the vectors of the kept images and captions come from."""
        images, captions = self._encoded["images"], self._encoded["captions"]
        return EmbeddingCounts(images, len(report.kept) - images, captions, report.captions - captions)

    def _add(self, modality: Modality, keys: Sequence[bytes], vectors: Vectors) -> None:
        self._caches[modality].add(keys, vectors)
        self._encoded[modality] += len(keys)


def embed_images(
    items: Sequence[CaptionedImage | Reject],
    embedder: Embedder,
    limits: Limits,
    thumbnails: ThumbnailCache | None = None,
    advance: Advance = lambda _: None,
    *,
    seen: SeenFiles | None = None,
) -> Report:
    """Read, decode, check, encode and shrink every image of a source in one pass; returns what was kept.

    The parameters and errors are those of ``embed_part``; here the items are the whole source, and every caption gets
    an id of its own.
    """
    report = embed_part(items, embedder, limits, thumbnails, advance, seen=seen)
    return Report(with_unique_ids(report.kept), report.rejects)


def embed_part(
    items: Sequence[CaptionedImage | Reject],
    embedder: Embedder,
    limits: Limits,
    thumbnails: ThumbnailCache | None = None,
    advance: Advance = lambda _: None,
    *,
    seen: SeenFiles | None = None,
    workers: int | None = None,
) -> Report:
    """As ``embed_images`` for a part of a source; ids of captions are as the source gives them.

    ``workers`` threads (None: one per core) read, decode and shrink; the calling thread encodes. ``thumbnails`` gets
    the thumbnails, if it is given. ``advance`` gets 1 for each image. A file that was ``seen``, and whose vector and
    thumbnail are there, is read but not decoded. Raises ModelUnavailable or MissingExtra.
    """

    def needs_pixels(content_hash: str) -> bool:
        key = image_key(content_hash)
        return embedder.needs("images", key) or (thumbnails is not None and thumbnails.needs(key))

    def look(blob: ImageBlob) -> tuple[ImageFacts, tuple[Pixels | None, Thumbnail | None]]:
        facts, image = look_at(blob, limits, seen, needs_pixels)
        if image is None:
            return facts, (None, None)
        key = image_key(facts.content_hash)
        pixels = embedder.encoder().preprocess(image) if embedder.needs("images", key) else None
        return facts, (pixels, thumbnails.make(key, image) if thumbnails is not None else None)

    images: list[ValidImage] = []
    rejects: list[Reject] = []
    waiting: dict[bytes, Pixels] = {}
    for kept in validate_each(items, look, rejects, ahead=2 * embedder.batch, advance=advance, workers=workers):
        images.append(kept.image)
        key = image_key(kept.image.content_hash)
        pixels, thumbnail = kept.derived
        if pixels is not None and embedder.needs("images", key):
            waiting[key] = pixels
        if len(waiting) == embedder.batch:
            embedder.add_images(waiting)
            waiting.clear()
        if thumbnails is not None:
            thumbnails.keep(key, thumbnail)
    if waiting:
        embedder.add_images(waiting)
    if thumbnails is not None:
        thumbnails.flush()
    return Report(images, rejects)
