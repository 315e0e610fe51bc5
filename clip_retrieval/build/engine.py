"""Where the images of a build are embedded: in this process, or by an engine that spreads them over others.

The result of an engine is the same as that of this process: the same report, and the same vectors and thumbnails in
the caches of the build, within what the encoder gives for the same image in another batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clip_retrieval.build.embed import Embedder, embed_images
from clip_retrieval.build.report import Report
from clip_retrieval.build.seen_files import SeenFiles
from clip_retrieval.build.thumbnails import ThumbnailCache
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Advance
from clip_retrieval.records import CaptionedImage, Reject


@dataclass(frozen=True)
class ImageTask:
    """What is to be embedded, with what, and the caches of the build that get the result."""

    items: Sequence[CaptionedImage | Reject]
    encoder: Path
    """The folder of the encoder, whose description is ``info``."""
    info: EncoderInfo
    work: Path
    """The folder of the build, which a build that was killed finds again."""
    limits: Limits
    embedder: Embedder
    thumbnails: ThumbnailCache | None
    advance: Advance
    """Gets the number of images that were just finished."""
    seen: SeenFiles | None
    fresh: bool
    """Whether nothing that was made before is used."""
    in_processes: bool = False
    """Whether this process has others decode and shrink: its encoder is faster than its threads."""


class EmbeddingEngine(Protocol):
    """Embeds the images of a source, and may embed its captions too."""

    def embed(self, task: ImageTask) -> Report:
        """Fill the caches of the build and return what was kept, in source order. Raises ClipRetrievalError."""
        ...


class LocalEngine:
    """Embeds in this process, with threads or processes that read, decode and shrink."""

    def embed(self, task: ImageTask) -> Report:
        """Captions are left to the build."""
        seen = None if task.fresh else task.seen
        return embed_images(
            task.items,
            task.embedder,
            task.limits,
            task.thumbnails,
            task.advance,
            seen=seen,
            in_processes=task.in_processes,
        )
