"""Search without HTTP: encoder, indexes and records together.

retriever = Retriever.load("clip-retrieval:latest")
for hit in retriever.search_images("a red panda", k=5):
    print(hit.score, hit.image.image_path)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image

from clip_retrieval.artifact import Artifact, Modality
from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import CaptionRecord, Hit, ImageRecord
from clip_retrieval.validate import decode_image


@dataclass(frozen=True, slots=True)
class ImageHit:
    """A found picture. ``score`` is the cosine; ``confidence`` the softmax of the returned scores."""

    rank: int
    score: float
    confidence: float
    image: ImageRecord
    captions: tuple[CaptionRecord, ...]


@dataclass(frozen=True, slots=True)
class CaptionHit:
    """A found caption and the picture that it is about. Numbers as in ``ImageHit``."""

    rank: int
    score: float
    confidence: float
    caption: CaptionRecord
    image: ImageRecord


class Retriever:
    """Text and pictures to pictures and captions. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, encoder: Encoder) -> None:
        """Raises EncoderMismatch when ``encoder`` is not the one that made the artifact's vectors."""
        artifact.require(encoder)
        self.artifact = artifact
        self.encoder = encoder
        self._store = artifact.store()
        self._indexes = {"images": artifact.index("images"), "captions": artifact.index("captions")}

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        precision: Literal["auto", "f32", "int8"] = "auto",
        threads: int | None = None,
    ) -> Self:
        """Open an artifact by model store tag or by folder, check its files and load its encoder.

        Raises ArtifactError of the kind that applies, ModelUnavailable or MissingExtra.
        """
        from clip_retrieval import modelstore

        artifact = Artifact.open(modelstore.locate(str(source))[1])
        return cls(artifact, artifact.encoder(precision=precision, threads=threads))

    def close(self) -> None:
        """Close the record store; searches fail from then on."""
        self._store.close()

    def search_images(self, query: str | Image.Image | Path, k: int = 5) -> list[ImageHit]:
        """The ``k`` pictures nearest to a text or to a picture, best first."""
        found, _ = self.find("images", self._encode(query)[0], k)
        return self.image_hits(found)

    def search_captions(self, query: str | Image.Image | Path, k: int = 5) -> list[CaptionHit]:
        """The ``k`` captions nearest to a picture or to a text, best first; none in a collection without captions."""
        found, _ = self.find("captions", self._encode(query)[0], k)
        return self.caption_hits(found)

    def find(self, target: Modality, vector: Vectors, k: int) -> tuple[list[Hit], float]:
        """The best ``k`` rows for one unit vector of shape (dim,), and the wall time of the index search in seconds."""
        if k < 1:
            raise InvalidQuery(f"k must be at least 1, not {k}")
        start = time.perf_counter()
        scores, rows = self._indexes[target].search(vector[None], k)
        seconds = time.perf_counter() - start
        pairs = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return [Hit(row, score) for row, score in pairs if row >= 0], seconds

    def image_hits(self, found: Sequence[Hit]) -> list[ImageHit]:
        """The records behind picture rows."""
        rows = [hit.row for hit in found]
        captions = self._store.captions_of(rows)
        numbers = zip(found, self._confidence(found), self._store.images(rows), strict=True)
        return [
            ImageHit(rank, hit.score, confidence, image, tuple(captions[hit.row]))
            for rank, (hit, confidence, image) in enumerate(numbers, start=1)
        ]

    def caption_hits(self, found: Sequence[Hit]) -> list[CaptionHit]:
        """The records behind caption rows."""
        captions = self._store.captions([hit.row for hit in found])
        images = self._store.images([caption.image_row for caption in captions])
        numbers = zip(found, self._confidence(found), captions, images, strict=True)
        return [
            CaptionHit(rank, hit.score, confidence, caption, image)
            for rank, (hit, confidence, caption, image) in enumerate(numbers, start=1)
        ]

    def _encode(self, query: str | Image.Image | Path) -> Vectors:
        if isinstance(query, str):
            if not query.strip():
                raise InvalidQuery("the text is empty")
            return self.encoder.encode_texts([query])
        if isinstance(query, Path):
            query = decode_image(query.read_bytes())
        return self.encoder.encode_images([query.convert("RGB")])

    def _confidence(self, found: Sequence[Hit]) -> list[float]:
        if not found:
            return []
        logits = np.array([hit.score for hit in found]) * self.encoder.info.logit_scale
        shares = np.exp(logits - logits.max())
        confidence: list[float] = (shares / shares.sum()).tolist()
        return confidence
