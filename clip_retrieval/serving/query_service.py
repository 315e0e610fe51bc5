"""The one way of a query through a server: look in the cache, encode its parts, search, render, keep.

Knows neither HTTP nor BentoML. Encoding goes through a ``Dispatcher``, which gathers batches. One ``QueryService``
serves one retriever; a request that began with it ends with it.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from clip_retrieval.encoders.base import Pixels, Tokens, Vectors
from clip_retrieval.errors import ImageRejected, InvalidQuery, PartRejected
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.search.hits import SearchOutcome
from clip_retrieval.search.query import Query, QueryImage, QueryPart, QueryText, StoredImage, decode_together
from clip_retrieval.search.ranking import BeyondFront
from clip_retrieval.search.results import render
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.cache import AnswerCache, QueryVectorCache, RenderedPage
from clip_retrieval.serving.engine import Encoded, EncodeJob
from clip_retrieval.serving.shared_state import PLACE, SharedState, Slot
from clip_retrieval.stages import Stage

EXACT_VALUES_IN_LOOP = 2**23
"""An exact search of more values than these (rows × dimensions: 16,384 rows of 512) takes over half a millisecond."""

_CACHE_GENERATION = PLACE["cache_generation"]


class Dispatcher(Protocol):
    """Takes single jobs and gathers them into batches for the encoder."""

    async def submit_text(self, job: EncodeJob) -> Encoded: ...

    async def submit_image(self, job: EncodeJob) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The answer to one query; ``stages`` has the stages that it went through, none if it was cached."""

    page: RenderedPage
    stages: Mapping[str, Stage]
    cached: bool = False
    batch_size: int | None = None
    """How many queries were encoded together, where the query has one part."""


class QueryService:
    """Answers queries with one retriever. Used from the event loop.

    A query is answered from one state of the collection from its beginning to its end.
    """

    def __init__(
        self,
        retriever: Retriever,
        dispatcher: Dispatcher,
        *,
        artifact: str,
        limits: Limits,
        decoders: ThreadPoolExecutor,
        answers: AnswerCache,
        shared: SharedState,
        slot: Slot,
        vectors_kept: int = 0,
    ) -> None:
        """``artifact`` is the tag or path that was asked for; ``limits`` hold for all images of a request together.

        ``shared`` says when the caches of all workers are cleared; ``slot`` is this worker's own in it.
        """
        self.retriever = retriever
        self.artifact = artifact
        self._answers = answers
        self._shared = shared
        self._slot = slot
        self._vectors = QueryVectorCache(vectors_kept)
        self.dispatcher = dispatcher
        self._limits = limits
        self._decoders = decoders
        self._searches = ThreadPoolExecutor(1, "search", initializer=search_on_one_thread)
        self.on_answer: Callable[[Query, RenderedPage], None] | None = None
        """Told of each answer that did not come from the cache."""
        # The last request that began with this service may end long after another service has taken over.
        weakref.finalize(self, self._searches.shutdown, wait=False)

    async def answer(
        self, queries: Sequence[Query], *, collection: SearchableCollection | None = None
    ) -> list[QueryAnswer | InvalidQuery]:
        """The answer to each query, in order; what is wrong with one of them is its own outcome.

        All come from ``collection``, which is the retriever's present one if none is given.
        """
        generation = self.forget_what_was_cleared()
        state = collection or self.retriever.collection
        version = state.version
        keys = [query.key() for query in queries]
        pages = [self._answers.get(version, key) for key in keys]
        new = [query for query, page in zip(queries, pages, strict=True) if page is None]
        tokens = await self._tokenize(dict.fromkeys(text for query in new for text in query.texts))
        images = {image.key: image for query in new for image in query.images}
        known = {key: vector for key in images if (vector := self._vectors.get(key)) is not None}
        pixels, decode = await self._decode({key: image for key, image in images.items() if key not in known})
        prepared = _Prepared(tokens, known, pixels, decode)

        async def one(query: Query, key: str, page: RenderedPage | None) -> QueryAnswer | InvalidQuery:
            if page is not None:
                return QueryAnswer(page, {}, cached=True)
            try:
                answer = await self._search(query, prepared, state)
            except InvalidQuery as error:
                return error
            if self._shared.generation("cache") == generation:  # else it was computed before a clearing
                self._answers.keep(version, key, answer.page)
            if self.on_answer is not None:
                self.on_answer(query, answer.page)
            return answer

        return await asyncio.gather(*map(one, queries, keys, pages))

    async def encode_text(self, text: str, language: str | None = None) -> tuple[Encoded, bool]:
        """The vector of a text, and whether the model read only its beginning.

        Raises InvalidQuery for a language that the model does not know.
        """
        self.forget_what_was_cleared()
        tokens = self.retriever.encoder.tokenize(text, language)
        return await self._encode_tokens(tokens), tokens.is_cut

    async def encode_image(self, image: QueryImage) -> tuple[Encoded, Stage]:
        """The vector of an image, and when it was decoded. Raises ImageRejected."""
        self.forget_what_was_cleared()
        pixels, decode = await self._decode({image.key: image})
        if isinstance(rejected := pixels[image.key], ImageRejected):
            raise rejected
        assert decode is not None, "an image was decoded"
        return await self._encode_pixels(image.key, rejected), decode

    def clear(self) -> int:
        """Have every worker drop what it keeps to answer faster; returns how many answers they kept together.

        A request that comes later gets no answer that was begun before, whichever worker answers it.
        """
        count = self._shared.cache_size()
        self._shared.advance("cache")
        self.forget_what_was_cleared()
        return count

    def forget_what_was_cleared(self) -> int:
        """Drop what is kept if some worker has cleared the caches since the last look; returns the generation."""
        generation = self._shared.generation("cache")
        if generation != self._slot.cells[_CACHE_GENERATION]:
            self._answers.clear()
            self._vectors.clear()
            self.retriever.collection.forget()
            self._slot.cells[_CACHE_GENERATION] = generation
        return generation

    async def _search(self, query: Query, prepared: "_Prepared", state: SearchableCollection) -> QueryAnswer:
        state.check_where(query.where or {})
        encoded = await asyncio.gather(*(self._encode(n, part, prepared, state) for n, part in enumerate(query.parts)))
        outcome = await self._find(query, np.stack([part.vector for part in encoded]), state)
        fragments = state.fragments(query.target, [hit.row for hit in outcome.hits])
        page = RenderedPage(
            results=render(outcome.hits, fragments),
            total=len(outcome.hits),
            next_offset=outcome.next_offset,
            truncated=any(prepared.is_cut(text) for text in query.texts),
        )
        stages = {"decode": prepared.decode} if prepared.decode is not None and query.images else {}
        stages["encode"] = max((part.encode for part in encoded), key=lambda stage: stage.seconds)
        stages["search"] = outcome.search
        return QueryAnswer(page, stages, batch_size=encoded[0].batch_size if len(encoded) == 1 else None)

    async def _find(self, query: Query, vectors: Vectors, state: SearchableCollection) -> SearchOutcome:
        """Search in the event loop, or in the search thread what may take longer than others should wait.

        A short search takes less time than its thread would wait for the GIL.
        """
        if _is_short(query, state):
            with contextlib.suppress(BeyondFront):
                return self.retriever.answer(query, vectors, collection=state, front_only=True)
        search = partial(self.retriever.answer, query, vectors, collection=state)
        return await asyncio.get_running_loop().run_in_executor(self._searches, search)

    async def _encode(
        self, number: int, part: QueryPart, prepared: "_Prepared", state: SearchableCollection
    ) -> Encoded:
        content = part.content
        if isinstance(content, StoredImage):
            return _kept(state.stored_vector(content.image_id))
        if isinstance(content, str):
            tokens = prepared.tokens[QueryText(content, part.language)]
            if isinstance(tokens, InvalidQuery):
                raise PartRejected(number, tokens, "language")
            return await self._encode_tokens(tokens)
        if (known := prepared.vectors.get(content.key)) is not None:
            return _kept(known)
        if isinstance(pixels := prepared.pixels[content.key], ImageRejected):
            raise PartRejected(number, pixels)
        return await self._encode_pixels(content.key, pixels)

    async def _encode_tokens(self, tokens: Tokens) -> Encoded:
        return self._known(tokens) or self._keep(tokens, await self.dispatcher.submit_text(EncodeJob(tokens)))

    async def _encode_pixels(self, key: str, pixels: Pixels) -> Encoded:
        return self._known(key) or self._keep(key, await self.dispatcher.submit_image(EncodeJob(pixels)))

    def _known(self, key: Hashable) -> Encoded | None:
        vector = self._vectors.get(key)
        return None if vector is None else _kept(vector)

    def _keep(self, key: Hashable, encoded: Encoded) -> Encoded:
        return Encoded(self._vectors.keep(key, encoded.vector), encoded.encode, encoded.batch_size)

    async def _tokenize(self, texts: Iterable[QueryText]) -> dict[QueryText, Tokens | InvalidQuery]:
        """The tokens of each text, or what is wrong with its language.

        A batch of searches may have a thousand long texts: others get their turn between.
        """
        tokens: dict[QueryText, Tokens | InvalidQuery] = {}
        for text in texts:
            if tokens:
                await asyncio.sleep(0)
            try:
                tokens[text] = self.retriever.encoder.tokenize(text.words, text.language)
            except InvalidQuery as error:
                tokens[text] = error
        return tokens

    async def _decode(
        self, images: Mapping[str, QueryImage]
    ) -> "tuple[dict[str, Pixels | ImageRejected], Stage | None]":
        """Pixels of images by their keys, or why there are none, and when a decoder thread worked on them."""
        if not images:
            return {}, None
        preprocess = self.retriever.encoder.preprocess

        def work() -> tuple[dict[str, Pixels | ImageRejected], Stage]:
            start = time.perf_counter()
            decoded = decode_together(images.values(), self._limits)
            pixels = {
                key: image if isinstance(image, ImageRejected) else preprocess(image)
                for key, image in zip(images, decoded, strict=True)
            }
            return pixels, Stage(start, time.perf_counter() - start)

        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What was done for the parts of all queries of a request before any of them was encoded."""

    tokens: Mapping[QueryText, Tokens | InvalidQuery]
    vectors: Mapping[str, Vectors]
    """The vectors of images that are kept, by key; these images are not decoded."""
    pixels: Mapping[str, Pixels | ImageRejected]
    decode: Stage | None

    def is_cut(self, text: QueryText) -> bool:
        """Whether the model reads only the beginning of ``text``."""
        tokens = self.tokens[text]
        return isinstance(tokens, Tokens) and tokens.is_cut


def _is_short(query: Query, state: SearchableCollection) -> bool:
    """Whether the front of the ranking, which is most often enough, is found within half a millisecond or so."""
    index = state.index(query.target)
    if index.compared_values > EXACT_VALUES_IN_LOOP:
        return False
    if query.where is None:
        return True
    # An approximate index may answer a filtered query by exact search.
    small = index.spec.rows * index.spec.dim <= EXACT_VALUES_IN_LOOP
    return small and state.keeps_mask(query.target, query.where)


def _kept(vector: Vectors) -> Encoded:
    """A vector that had not to be encoded: no time, no batch."""
    return Encoded(vector, Stage(time.perf_counter(), 0.0), 0)
