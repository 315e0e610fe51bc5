"""Blocks of a source, and what a worker makes of one: a shard.

A worker may be on another machine. It must see the same files, the same encoder and the same packages as the machine
that cut the blocks, so it compares them and says what differs: else images of a folder that is not shared would become
rejects.
"""

import hashlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from clip_retrieval import __version__
from clip_retrieval.build.embed import Embedder, embed_part
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.seen_files import DECODERS
from clip_retrieval.build.shard_place import shard_place
from clip_retrieval.build.shards import SCHEMA, KeptImage, Shard, ShardManifest, find_manifest, write_shard
from clip_retrieval.build.thumbnails import ThumbnailCache
from clip_retrieval.build.vector_cache import caption_key, image_key
from clip_retrieval.datasets.stamp import Stamp, stamp_of
from clip_retrieval.encoders.base import Encoder, Pixels, Tokens, Vectors
from clip_retrieval.errors import ClusterFailed
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import Plan
from clip_retrieval.records import CaptionedImage, Modality, Reject


def versions() -> dict[str, str]:
    """What decides the pixels and the thumbnails of an image: this release, and the libraries that decode."""
    found = {"bento-clip": __version__}
    for name in DECODERS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True)
class EmbedJob:
    """Everything but the items that decides what a shard holds, and where it lies. It is sent to the workers."""

    encoder: Path
    fingerprint: str
    runtime: str
    dim: int
    limits: Limits
    plan: Plan | None
    """The size of thumbnails; None if none are made."""
    batch: int
    """Images that are encoded together."""
    place: str
    """Where the shards lie: see ``shard_place``."""
    versions: Mapping[str, str]

    def key(self, items: Sequence[CaptionedImage | Reject], stamps: Sequence[Stamp]) -> str:
        """The hex SHA-256 of everything that decides what the shard of these items holds."""
        plan = None if self.plan is None else asdict(self.plan)
        made_with = [self.fingerprint, self.runtime, asdict(self.limits), plan, self.batch, dict(self.versions)]
        digest = hashlib.sha256(json.dumps([SCHEMA, *made_with], sort_keys=True).encode())
        for item, stamp in zip(items, stamps, strict=True):
            facts = [item.where, item.reason] if isinstance(item, Reject) else [item.image_id, _captions(item)]
            digest.update(json.dumps([*facts, stamp]).encode() + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Block:
    """Items of a source that follow each other, with the stamps of their files."""

    key: str
    """The name of its shard."""
    items: Sequence[CaptionedImage | Reject]
    stamps: Sequence[Stamp]

    @property
    def images(self) -> int:
        """The number of images, before validation."""
        return sum(isinstance(item, CaptionedImage) for item in self.items)


def cut(items: Sequence[CaptionedImage | Reject], size: int, job: EmbedJob) -> Iterator[Block]:
    """Blocks of ``size`` items, in source order; the last may be smaller."""
    for start in range(0, len(items), size):
        part = items[start : start + size]
        stamps = [_stamp(item) for item in part]
        yield Block(job.key(part, stamps), part, stamps)


def embed_block(block: Block, job: EmbedJob, encoder: Encoder, workers: int) -> ShardManifest:
    """Read, decode, check, encode and shrink the images of a block, encode its captions, and write its shard.

    A block whose shard is there already costs nothing: it may have been sent again after its worker was lost.
    ``workers`` threads decode. Raises ClusterFailed if this machine sees other files than the one that cut the block;
    StoreUnreachable, EncoderFailed and OSError.
    """
    place, host = shard_place(job.place), socket.gethostname()
    if (made := find_manifest(place, block.key, job.fingerprint)) is not None:
        return made
    start = time.perf_counter()
    _require_same_files(block, host)
    timed = TimedEncoder(encoder)
    with tempfile.TemporaryDirectory(prefix="bento-clip-block-") as folder:
        shard = _shard(block, job, timed, Path(folder), workers)
    return write_shard(
        place,
        block.key,
        shard,
        encoder=job.fingerprint,
        made_by=host,
        seconds=time.perf_counter() - start,
        encoder_seconds=timed.seconds,
    )


def require_same_packages(job: EmbedJob) -> None:
    """Raise ClusterFailed if other packages are installed here than where the blocks are cut."""
    here = versions()
    for name in sorted({*here, *job.versions}):
        if (mine := here.get(name, "none")) != (theirs := job.versions.get(name, "none")):
            raise ClusterFailed(
                f"the worker {socket.gethostname()} has {name} {mine}, and the build has {theirs}; install the same"
                " packages on every machine"
            )


class TimedEncoder(Encoder):
    """An encoder that measures the time (s) in which it computes batches."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.info = encoder, encoder.info
        self.seconds = 0.0

    def tokenize(self, text: str, language: str | None = None) -> Tokens:
        return self._encoder.tokenize(text, language)

    def preprocess(self, image: Image.Image) -> Pixels:
        return self._encoder.preprocess(image)

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        with self._clock():
            return self._encoder.encode_tokens(texts)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        with self._clock():
            return self._encoder.encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        with self._clock():
            return self._encoder.encode_texts(texts)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


def _shard(block: Block, job: EmbedJob, encoder: Encoder, folder: Path, workers: int) -> Shard:
    """What is made of a block, by the same code as a build in one process; ``folder`` is for its caches."""
    nothing = KnownArtifacts((), encoder.info)
    thumbnails = None
    with ExitStack() as opened:
        embedder = opened.enter_context(closing(Embedder(lambda: encoder, job.dim, folder, nothing, job.batch)))
        if job.plan is not None:
            path = folder / "thumbnails.sqlite"
            thumbnails = opened.enter_context(closing(ThumbnailCache(path, job.plan, sys.maxsize, nothing)))
        report = embed_part(block.items, embedder, job.limits, thumbnails, workers=workers)
        texts = list(dict.fromkeys(caption.text for image in report.kept for caption in image.captions))
        embedder.embed_captions(texts)
        image_keys = list(dict.fromkeys(image_key(image.content_hash) for image in report.kept))
        caption_keys = [caption_key(text) for text in texts]

        def vectors(modality: Modality, keys: Sequence[bytes]) -> Vectors:
            if not keys:
                return np.empty((0, job.dim), dtype=np.float32)
            return np.array(embedder.gather(modality, keys, folder / f"{modality}.npy"))

        return Shard(
            kept=[KeptImage(one.image_id, one.content_hash, one.width, one.height) for one in report.kept],
            rejects=report.rejects,
            image_keys=image_keys,
            images=vectors("images", image_keys),
            caption_keys=caption_keys,
            captions=vectors("captions", caption_keys),
            thumbnails={} if thumbnails is None else {key: thumbnails.get(key) for key in image_keys},
        )


def _require_same_files(block: Block, host: str) -> None:
    for item, stamp in zip(block.items, block.stamps, strict=True):
        if isinstance(item, CaptionedImage) and stamp_of(item.blob) != stamp:
            raise ClusterFailed(
                f"the worker {host} sees another file {item.blob.name} than the build; every machine needs the source"
                " in the same folder, and nobody may change it during the build"
            )


def _stamp(item: CaptionedImage | Reject) -> Stamp:
    return stamp_of(item.blob) if isinstance(item, CaptionedImage) else ()


def _captions(item: CaptionedImage) -> list[str]:
    return [caption.text for caption in item.captions]
