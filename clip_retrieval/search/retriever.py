"""Search without HTTP: encoder, indexes and records together.

retriever = Retriever.load("clip-retrieval:latest")
for hit in retriever.search_images("a red panda", k=5):
    print(hit.score, hit.image.image_path)

found = retriever.search([text("a dog"), image_id("owl-1", -0.5)], where={"year": {"gte": 2020}})
"""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from cachetools import LRUCache
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.contract.base import DEFAULT_K
from clip_retrieval.contract.collection import FieldInfo
from clip_retrieval.contract.queries import Part, SearchRequest, Where, search_request
from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.images.decode import decode_image, decode_part
from clip_retrieval.records import CaptionRecord, Hit, ImageRecord, Modality
from clip_retrieval.search.compose import compose
from clip_retrieval.search.filters import Filters
from clip_retrieval.search.hits import CaptionHit, Found, ImageHit
from clip_retrieval.search.ranking import FOLDED_AT_ONCE, FRONT, Page, Ranking, cut_page

IMAGES_KEPT = 10_000
"""Records that are kept after they were read: about 2 KB an image with five captions, and a fifth of a request's time
where they have to be read."""


class Retriever:
    """Text and images to images and captions. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, encoder: Encoder) -> None:
        """Raises EncoderMismatch when ``encoder`` is not the one that made the artifact's vectors."""
        artifact.require(encoder)
        self.artifact = artifact
        self.encoder = encoder
        self._store = artifact.store()
        self._recent: LRUCache[int, tuple[ImageRecord, tuple[CaptionRecord, ...]]] = LRUCache(IMAGES_KEPT)
        self._recent_lock = threading.Lock()
        self._indexes = {"images": artifact.index("images"), "captions": artifact.index("captions")}
        self.filters = Filters(self._store.facts(), self._store.caption_owners())
        numbers: dict[str, int] = {}
        hashes = self._store.content_hashes()
        self._content = np.array([numbers.setdefault(one, len(numbers)) for one in hashes], dtype=np.int64)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        precision: Literal["auto", "f32", "int8"] | None = None,
        threads: int | None = None,
    ) -> Self:
        """Open an artifact by model store tag or by folder, check its files and load its encoder.

        Raises ArtifactError of the kind that applies, ModelUnavailable or MissingExtra.
        """
        from clip_retrieval.artifacts import modelstore

        artifact = Artifact.open(modelstore.locate(str(source))[1])
        return cls(artifact, artifact.encoder(precision=precision, threads=threads))

    def close(self) -> None:
        """Close the record store; searches fail from then on."""
        self._store.close()

    def search_images(self, query: str | Image.Image | Path, k: int = 5) -> list[ImageHit]:
        """The ``k`` images nearest to a text or to an image, best first."""
        found, _ = self.find("images", self._encode(query)[0], k)
        return self.image_hits(found)

    def search_captions(self, query: str | Image.Image | Path, k: int = 5) -> list[CaptionHit]:
        """The ``k`` captions nearest to an image or to a text, best first; none in a collection without captions."""
        found, _ = self.find("captions", self._encode(query)[0], k)
        return self.caption_hits(found)

    def search(
        self,
        queries: Sequence[Part],
        *,
        target: Modality = "images",
        k: int = DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        dedupe: bool = False,
        where: Where | None = None,
    ) -> Found:
        """One page of what is nearest to a weighted mix of texts and images; ``docs/queries.md`` has the rules.

        Raises InvalidQuery, or ImageRejected for an image that does not decode.
        """
        request = search_request(
            queries, target=target, k=k, offset=offset, min_score=min_score, dedupe=dedupe, where=where
        )
        vectors = np.stack([self._vector_of(part) for part in request.queries])
        return self.find_page(compose(vectors, [part.weight for part in request.queries]), request)

    def find_page(self, vector: Vectors, request: SearchRequest) -> Found:
        """The page that ``request`` asks for, with the unit vector (dim,) that its parts were composed to.

        Images that the query names by id are not among the results; whoever names one has it. Raises InvalidQuery.
        """
        target, dedupe = request.target, request.dedupe
        named = [part.image_id for part in request.queries if part.image_id is not None]
        without = [self._named(identity).row for identity in named] if target == "images" else []
        start = time.perf_counter()
        ranking = Ranking(
            self._indexes[target],
            vector,
            front=FOLDED_AT_ONCE if dedupe else FRONT,
            allowed=self.filters.mask(request.where, target) if request.where else None,
            without=without,
        )
        content = self._content if target == "images" else None
        page = cut_page(ranking, request.k, request.offset, min_score=request.min_score, dedupe=dedupe, content=content)
        search_s = time.perf_counter() - start
        images, captions = self._hits(page, target, request.offset)
        return Found(images, captions, request.offset + request.k if page.more else None, start, search_s)

    def stored_vector(self, image_id: str) -> Vectors:
        """The unit vector (dim,) of an image of the collection. Raises InvalidQuery if there is none of that id."""
        row = self._named(image_id).row
        vector: Vectors = self._indexes["images"].vectors_of(np.array([row]))[0]
        return vector

    def fields(self) -> list[FieldInfo]:
        """What ``where`` can name."""
        return self.filters.fields

    def image(self, image_id: str) -> tuple[ImageRecord, list[CaptionRecord]] | None:
        """An image of the collection and its captions; None if there is none of that id."""
        image = self._store.images_named([image_id]).get(image_id)
        return None if image is None else (image, self._store.captions_of([image.row])[image.row])

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
        """The records behind image rows."""
        numbers = zip(found, self._confidence(found), self._images([hit.row for hit in found]), strict=True)
        return [
            ImageHit(rank, hit.score, confidence, image, captions)
            for rank, (hit, confidence, (image, captions)) in enumerate(numbers, start=1)
        ]

    def caption_hits(self, found: Sequence[Hit]) -> list[CaptionHit]:
        """The records behind caption rows."""
        captions = self._store.captions([hit.row for hit in found])
        images = self._images([caption.image_row for caption in captions])
        numbers = zip(found, self._confidence(found), captions, images, strict=True)
        return [
            CaptionHit(rank, hit.score, confidence, caption, image)
            for rank, (hit, confidence, caption, (image, _)) in enumerate(numbers, start=1)
        ]

    def _images(self, rows: Sequence[int]) -> list[tuple[ImageRecord, tuple[CaptionRecord, ...]]]:
        """The records of these images, each with its captions, in the order asked; the latest are kept."""
        with self._recent_lock:
            found = {row: kept for row in rows if (kept := self._recent.get(row)) is not None}
        if missing := [row for row in rows if row not in found]:
            captions = self._store.captions_of(missing)
            read = {image.row: (image, tuple(captions[image.row])) for image in self._store.images(missing)}
            with self._recent_lock:
                self._recent.update(read)
            found |= read
        return [found[row] for row in rows]

    def _hits(self, page: Page, target: Modality, offset: int) -> tuple[list[ImageHit], list[CaptionHit]]:
        found = [Hit(row, score) for row, score in zip(page.rows, page.scores, strict=True)]
        if target == "images":
            counted = zip(self.image_hits(found), page.duplicates, strict=True)
            return [replace(hit, rank=offset + hit.rank, duplicates=count) for hit, count in counted], []
        counted_captions = zip(self.caption_hits(found), page.duplicates, strict=True)
        return [], [replace(hit, rank=offset + hit.rank, duplicates=count) for hit, count in counted_captions]

    def _named(self, image_id: str) -> ImageRecord:
        image = self._store.images_named([image_id]).get(image_id)
        if image is None:
            raise InvalidQuery(f"there is no image {image_id} in this collection")
        return image

    def _vector_of(self, part: Part) -> Vectors:
        if part.image_id is not None:
            return self.stored_vector(part.image_id)
        if part.image is not None:
            vectors = self.encoder.encode_images([decode_part(part.image)])
        else:
            vectors = self.encoder.encode_texts([part.text or ""])
        vector: Vectors = vectors[0]
        return vector

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
        best = max(hit.score for hit in found)
        shares = [math.exp((hit.score - best) * self.encoder.info.logit_scale) for hit in found]
        total = sum(shares)
        return [share / total for share in shares]
