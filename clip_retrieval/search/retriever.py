"""Search without HTTP: a collection and the encoder that made its vectors.

retriever = Retriever.load("clip-retrieval:latest")
for hit in retriever.search_images("a red panda", k=5):
    print(hit.score, hit.image.image_path)

page = retriever.search([text("a dog"), image_id("owl-1", -0.5)], where={"year": {"gte": 2020}})
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.confidence import LEAST_PAIRS, Curve, Curves, Lower
from clip_retrieval.contract.base import DEFAULT_K
from clip_retrieval.contract.cards import Look
from clip_retrieval.contract.queries import MAX_OFFSET, Part, Sort, Where, browse_request, search_request
from clip_retrieval.encoders.base import Encoder, Vectors
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.images.decode import DEFAULT_LIMITS, Limits, content_hash
from clip_retrieval.records import Modality, Mode, Way
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.compose import compose
from clip_retrieval.search.hits import CaptionHit, Hit, Hits, ImageHit, Listed, ListedPage, ResultPage, SearchOutcome
from clip_retrieval.search.modes import check_mode
from clip_retrieval.search.page import find_page
from clip_retrieval.search.query import FileImage, Query, QueryImage, QueryPart, StoredImage
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.stages import Stage


class Retriever:
    """Text and images to images and captions. Safe to call from several threads.

    ``collection`` is the state that is searched. Each call takes it once, at its beginning.
    """

    def __init__(self, artifact: Artifact, encoder: Encoder) -> None:
        """Raises EncoderMismatch when ``encoder`` is not the one that made the artifact's vectors."""
        artifact.check_encoder(encoder)
        self.encoder = encoder
        self.collection: SearchableCollection = Collection(artifact)

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

        artifact = Artifact.open_checked(modelstore.resolve(str(source))[1])
        return cls(artifact, artifact.encoder(precision=precision, threads=threads))

    def close(self) -> None:
        """Close the collection; searches fail from then on."""
        self.collection.close()

    def exchange(self, collection: SearchableCollection) -> SearchableCollection:
        """Search ``collection`` from the next call on; returns the one before, which calls in progress still search.

        Raises EncoderMismatch when another encoder made its vectors.
        """
        collection.artifact.check_encoder(self.encoder)
        previous, self.collection = self.collection, collection
        return previous

    def search_images(
        self, query: str | Image.Image | Path, k: int = DEFAULT_K, language: str | None = None
    ) -> Hits[ImageHit]:
        """The ``k`` images nearest to a text or to an image, best first.

        ``language`` is that of a text, a code such as ``deu_Latn``, for a model that marks texts with it.
        """
        collection = self.collection
        found = collection.image_hits(self._search_one(query, "images", k, language, collection).hits)
        return Hits(found, _look(collection))

    def search_captions(
        self, query: str | Image.Image | Path, k: int = DEFAULT_K, language: str | None = None
    ) -> Hits[CaptionHit]:
        """The ``k`` captions nearest to an image or to a text, best first; none in a collection without captions.

        ``language`` as in ``search_images``.
        """
        collection = self.collection
        found = collection.caption_hits(self._search_one(query, "captions", k, language, collection).hits)
        return Hits(found, _look(collection))

    def search(
        self,
        queries: Sequence[Part],
        *,
        target: Modality = "images",
        k: int = DEFAULT_K,
        offset: int = 0,
        min_score: float | None = None,
        min_confidence: float | None = None,
        dedupe: bool = False,
        where: Where | None = None,
        mode: Mode = "vector",
    ) -> ResultPage:
        """One page of what is nearest to a weighted mix of texts and images; ``docs/queries.md`` has the rules.

        Raises InvalidQuery, or ImageRejected for an image that does not decode.
        """
        request = search_request(
            queries,
            target=target,
            k=k,
            offset=offset,
            min_score=min_score,
            min_confidence=min_confidence,
            dedupe=dedupe,
            where=where,
            mode=mode,
        )
        collection = self.collection
        outcome = self.run(Query.of(request), collection=collection)
        images = collection.image_hits(outcome.hits) if target == "images" else []
        captions = collection.caption_hits(outcome.hits) if target == "captions" else []
        look = _look(collection)
        return ResultPage(images, captions, outcome.next_offset, outcome.search, outcome.below, look)

    def browse(
        self,
        *,
        k: int = DEFAULT_K,
        offset: int = 0,
        where: Where | None = None,
        sort: Sort | str | None = None,
    ) -> ListedPage:
        """One page of the images that fulfil ``where``, in the order of ``sort``: a field, by default the id.

        Images without a value in that field come last. Raises InvalidQuery.
        """
        request = browse_request(k=k, offset=offset, where=where, sort=sort)
        collection = self.collection
        found = browse(Query.of(request), collection)
        return ListedPage(collection.images(found.rows), found.offset, found.next_offset, _look(collection))

    def run(self, query: Query, *, collection: SearchableCollection | None = None) -> SearchOutcome:
        """Encode the parts of a query and answer it from ``collection``, which is the present one if none is given.

        Raises InvalidQuery or ImageRejected.
        """
        collection = collection or self.collection
        check_mode(query, collection)
        vectors = np.stack([self._vector_of(part, collection) for part in query.parts])
        return self.answer(query, vectors, collection=collection)

    def answer(
        self,
        query: Query,
        vectors: Vectors,
        *,
        collection: SearchableCollection | None = None,
        front_only: bool = False,
    ) -> SearchOutcome:
        """The page that a query asks for, with the unit vectors (parts, dim) of its parts. Raises InvalidQuery.

        The rows are those of ``collection``, which is the present one if none is given. With ``front_only`` it raises
        BeyondFront where the page needs rows behind the front of the ranking.

        This is the one search: every route of the API, the command line and every call from Python ends here. Images
        of the collection that the query names are not among the results.
        """
        collection = collection or self.collection
        check_mode(query, collection)
        vector = compose(vectors, [part.weight for part in query.parts])
        named = [part.content.image_id for part in query.parts if isinstance(part.content, StoredImage)]
        without = [collection.row_of(image_id) for image_id in named] if query.target == "images" else []
        curve = self._curve(query, collection)
        start = time.perf_counter()
        asks = curve is not None and asks_captions(query, collection)
        judge = _given_captions(curve, vector, collection) if curve is not None and asks else curve
        least = None if judge is None or not query.min_confidence else judge.cosine(query.min_confidence)
        knows = self.encoder.knows
        found = find_page(query, vector, collection, without, least, knows=knows, front_only=front_only)
        search = Stage(start, time.perf_counter() - start)
        page = found.page
        confidence = [None if judge is None else judge.share(score) for score in page.scores]
        ranks = range(query.offset + 1, query.offset + 1 + len(page.rows))
        shares = self._shares(page.scores)
        hits = list(map(Hit, page.rows, ranks, page.scores, confidence, shares, page.duplicates, found.found_by))
        return SearchOutcome(query.target, hits, _next_offset(query) if page.more else None, search, found.below)

    def _curve(self, query: Query, collection: SearchableCollection) -> Curve | None:
        """The share of right answers for this query. Raises InvalidQuery if it asks for one and there is none."""
        curves, way = collection.curves, query.way
        curve = None if curves is None or way is None else curves.way(way)
        if curve is None and query.min_confidence:
            raise InvalidQuery(f"min_confidence: {no_confidence(curves, way)}; leave it out")
        return curve

    def _search_one(
        self,
        query: str | Image.Image | Path,
        target: Modality,
        k: int,
        language: str | None,
        collection: SearchableCollection,
    ) -> SearchOutcome:
        if k < 1:
            raise InvalidQuery(f"k must be at least 1, not {k}")
        if isinstance(query, str) and not query.strip():
            raise InvalidQuery("the text is empty")
        if language is not None and not isinstance(query, str):
            raise InvalidQuery("language is that of a text, and the query is an image; leave language out")
        content: str | QueryImage
        if isinstance(query, str):
            content = query
        elif isinstance(query, Path):
            content = FileImage(query.read_bytes())
        else:
            content = _Decoded(query)
        return self.run(Query((QueryPart(content, language=language),), target, k), collection=collection)

    def _vector_of(self, part: QueryPart, collection: SearchableCollection) -> Vectors:
        if isinstance(part.content, StoredImage):
            return collection.stored_vector(part.content.image_id)
        if isinstance(part.content, str):
            vectors = self.encoder.encode_tokens([self.encoder.tokenize(part.content, part.language)])
        else:
            vectors = self.encoder.encode_images([part.content.decode(DEFAULT_LIMITS)])
        vector: Vectors = vectors[0]
        return vector

    def _shares(self, scores: Sequence[float]) -> list[float]:
        if not scores:
            return []
        best = max(scores)
        shares = [math.exp((score - best) * self.encoder.info.logit_scale) for score in scores]
        total = sum(shares)
        return [share / total for share in shares]


def asks_captions(query: Query, collection: SearchableCollection) -> bool:
    """Whether the confidence of a query takes the nearest caption too: it is one text, in the captions' own language.

    A mix of texts, or one that subtracts, is nobody's caption. It takes a search more, so it is done where
    ``min_confidence`` asks for it; 0 asks and leaves nothing out.
    """
    curves, parts = collection.curves, query.parts
    if query.min_confidence is None or curves is None or query.way != "text_to_image" or len(parts) != 1:
        return False
    has_term = curves.text_to_image is not None and curves.text_to_image.with_caption is not None
    return has_term and parts[0].weight > 0 and parts[0].language is None and collection.count("captions") > 0


def _given_captions(curve: Curve, vector: Vectors, collection: SearchableCollection) -> Curve | Lower:
    """The curve of a text by its nearest caption of all, whatever filter the images have to pass."""
    found = collection.index("captions").search(vector[None], 1, allowed=collection.allowed("captions", None))
    return curve if found.rows[0, 0] < 0 else curve.given(float(found.scores[0, 0]))


def no_confidence(curves: Curves | None, way: Way | None) -> str:
    """Why a query has no confidence, in words."""
    if way is None:
        return "is for texts that find images, or images that find captions"
    if curves is None:
        return "this artifact was made by an earlier release, which did not measure it; build or tune it again"
    return f"this collection has fewer than {LEAST_PAIRS} images with captions, or these do not tell right from wrong"


def browse(query: Query, collection: SearchableCollection) -> Listed:
    """The page that a query without parts asks for: images in an order of their own. Raises InvalidQuery."""
    start = time.perf_counter()
    end = query.offset + query.k
    rows = collection.in_order(query.sort, query.where, end + 1).tolist()
    search = Stage(start, time.perf_counter() - start)
    return Listed(rows[query.offset : end], query.offset, _next_offset(query) if len(rows) > end else None, search)


def _next_offset(query: Query) -> int | None:
    """Where the next page begins; None where no request may ask for it."""
    end = query.offset + query.k
    return end if end <= MAX_OFFSET else None


def _look(collection: SearchableCollection) -> Look:
    """Small thumbnails from the collection, where it has them."""
    return Look(lambda image_id: collection.thumbnail(image_id, "small")) if collection.has_thumbnails else Look()


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An image that a Python program has already."""

    image: Image.Image
    size = 0
    data = "a Python program has decoded it already"

    @property
    def key(self) -> str:
        return f"pixels:{content_hash(self.image)}"

    def decode(self, _: Limits) -> Image.Image:
        return self.image.convert("RGB")
