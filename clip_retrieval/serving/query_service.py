"""The one way of a query through a server: look in the cache, encode its parts, search, render, keep.

Knows neither HTTP nor BentoML. Encoding goes through a ``Dispatcher``, which gathers batches. One ``QueryService``
serves one retriever; a request that began with it ends with it.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from clip_retrieval.encoders.base import Pixels, Tokens, Vectors
from clip_retrieval.errors import ImageRejected, InvalidQuery, PartRejected
from clip_retrieval.images.decode import Limits
from clip_retrieval.indexes.faiss_index import search_on_one_thread
from clip_retrieval.records import MODALITIES
from clip_retrieval.search.hits import SearchOutcome
from clip_retrieval.search.modes import check_mode
from clip_retrieval.search.query import Query, QueryImage, QueryPart, QueryText, StoredImage
from clip_retrieval.search.ranking import BeyondFront
from clip_retrieval.search.results import render, render_listed
from clip_retrieval.search.retriever import Retriever, asks_captions, browse
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.cache import AnswerCache, QueryVectorCache, RenderedPage
from clip_retrieval.serving.decoders import Decoders, decode_together
from clip_retrieval.serving.engine import Encoded, EncodeJob
from clip_retrieval.serving.large_bodies import read_by_size
from clip_retrieval.serving.priority import keep_off
from clip_retrieval.serving.replica_cache import ReplicaCache
from clip_retrieval.serving.shared_state import PLACE, SharedState, Slot
from clip_retrieval.serving.traffic import IMAGES_A_PLACE, TEXTS_A_PLACE
from clip_retrieval.stages import Stage

EXACT_VALUES_IN_LOOP = 2**22
"""An exact search of more values than these (rows × dimensions: 8,192 rows of 512) would hold up the event loop. On a
busy Xeon this many take 0.8 ms and twice as many 1.4; the search thread waits 0.1 to 0.3 ms for the GIL."""

WORDS_IN_LOOP = 2_000
"""Images or captions whose words are looked up in the event loop, which takes a millisecond at most; the words of more
are for the search thread."""

ENGINE_THREADS = 16
"""Searches that wait for an engine outside of this process at the same time. Its own deadline bounds each."""

_CACHE_GENERATION = PLACE["cache_generation"]

T = TypeVar("T")


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
    vectors: Vectors | None = None
    """The unit vectors of its parts, float32 (parts, dim); None if it was cached, or has no parts."""


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
        decoders: Decoders,
        answers: AnswerCache,
        shared: SharedState,
        slot: Slot,
        vectors_kept: int = 0,
        replicas: ReplicaCache | None = None,
    ) -> None:
        """``artifact`` is the tag or path that was asked for; ``limits`` hold for all images of a request together.

        ``shared`` says when the caches of all workers are cleared; ``slot`` is this worker's own in it.
        ``replicas`` has the answers that other services keep too.
        """
        self.retriever = retriever
        self.artifact = artifact
        self._answers = answers
        self._replicas = replicas
        self._shared = shared
        self._slot = slot
        self._vectors = QueryVectorCache(vectors_kept)
        self.dispatcher = dispatcher
        self._limits = limits
        self._decoders = decoders
        is_large = any(retriever.collection.index(one).compared_values > EXACT_VALUES_IN_LOOP for one in MODALITIES)
        # A composed search follows the event loop on its core: another core may be busy, and the loop waits for it.
        self._searches = ThreadPoolExecutor(
            1, "search", initializer=_search_apart if is_large else search_on_one_thread
        )
        self._asks = ThreadPoolExecutor(ENGINE_THREADS, "ask", initializer=_search_apart)
        self.on_answer: Callable[[Query, RenderedPage], None] | None = None
        """Told of each answer that did not come from the cache."""
        # The last request that began with this service may end long after another service has taken over.
        weakref.finalize(self, self._searches.shutdown, wait=False)
        weakref.finalize(self, self._asks.shutdown, wait=False)

    async def answer(
        self, queries: Sequence[Query], *, collection: SearchableCollection | None = None
    ) -> list[QueryAnswer | InvalidQuery]:
        """The answer to each query, in order; what is wrong with one of them is its own outcome.

        All come from ``collection``, which is the retriever's present one if none is given.
        """
        generation = self.forget_what_was_cleared()
        state = collection or self.retriever.collection
        version = state.version
        await read_by_size(*_sizes_and_keys(image for query in queries for image in query.images))
        keys = [query.key() for query in queries]
        pages, store = await self._kept_pages(version, keys, generation)
        wrong = [None if page else _wrong(query, state) for query, page in zip(queries, pages, strict=True)]
        new = [query for query, page, error in zip(queries, pages, wrong, strict=True) if not page and not error]
        tokens = await self._tokenize(dict.fromkeys(text for query in new for text in query.texts))
        images, decode = await self._encode_images({image.key: image for query in new for image in query.images})
        prepared = _Prepared(tokens, images, decode, asyncio.Semaphore(TEXTS_A_PLACE))

        async def one(
            query: Query, key: str, page: RenderedPage | None, error: InvalidQuery | None
        ) -> QueryAnswer | InvalidQuery:
            if page is not None:
                return QueryAnswer(page, {}, cached=True)
            if error is not None:
                return error
            try:
                answer = await self._search(query, prepared, state)
            except InvalidQuery as wrong_part:
                return wrong_part
            if self._shared.generation("cache") == generation:  # else it was computed before a clearing
                self._answers.keep(version, key, answer.page)
                if self._replicas is not None:
                    self._replicas.keep(version, key, answer.page, store)
            if self.on_answer is not None:
                self.on_answer(query, answer.page)
            return answer

        return await _together([*map(one, queries, keys, pages, wrong)])

    async def _kept_pages(
        self, version: str, keys: Sequence[str], generation: int
    ) -> tuple[list[RenderedPage | None], bytes | None]:
        """The answer that is kept for each key, here or for all replicas, and the generation of their store."""
        pages = [self._answers.get(version, key) for key in keys]
        if self._replicas is None:
            return pages, None
        missing = [number for number, page in enumerate(pages) if page is None]
        found, store = await self._replicas.get(version, [keys[number] for number in missing])
        for number, page in zip(missing, found, strict=True):
            if page is not None:
                pages[number] = page
                if self._shared.generation("cache") == generation:
                    self._answers.keep(version, keys[number], page)
        return pages, store

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
        await read_by_size(*_sizes_and_keys([image]))
        decoded = await self._decoders.pixels(image, self._limits, self.retriever.encoder)
        return await self._encode_pixels(image.key, decoded.pixels), decoded.stage

    async def encode_all(self, texts: Iterable[str], images: Iterable[QueryImage]) -> "EncodedInputs":
        """The vectors of many texts and images, equal ones encoded once.

        A few of the texts wait for a batch at once. Raises Busy and TooCostly if there is no memory for the images.
        """
        self.forget_what_was_cleared()
        known = {image.key: image for image in await _with_keys(images)}
        tokens = await self._tokenize(map(QueryText, dict.fromkeys(texts)))
        found, decode = await self._encode_images(known)
        turns = asyncio.Semaphore(TEXTS_A_PLACE)

        async def encode(text: QueryText) -> tuple[str, EncodedText]:
            part = tokens[text]
            if isinstance(part, InvalidQuery):
                raise part
            async with turns:
                return text.words, EncodedText(await self._encode_tokens(part), len(part.ids), part.is_cut)

        encoded = dict(await asyncio.gather(*map(encode, tokens)))
        return EncodedInputs(encoded, found, decode)

    async def clear_for_all(self) -> tuple[int, bool]:
        """``clear``, also for other services; whether the store that they share with this one was cleared.

        The store comes first: else a request in between would keep here what it has found there.
        """
        reached = self._replicas is None or await self._replicas.clear()
        return self.clear(), reached

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
        if not query.parts:
            return await self._browse(query, state)
        encoded = await _together([self._encode(n, part, prepared, state) for n, part in enumerate(query.parts)])
        vectors = np.stack([part.vector for part in encoded])
        outcome = await self._find(query, vectors, state)
        fragments = state.fragments(query.target, [hit.row for hit in outcome.hits])
        page = RenderedPage(
            results=render(outcome.hits, fragments),
            total=len(outcome.hits),
            next_offset=outcome.next_offset,
            truncated=any(prepared.is_cut(text) for text in query.texts),
            below=outcome.below,
        )
        stages = {"decode": prepared.decode} if prepared.decode is not None and query.images else {}
        stages["encode"] = max((part.encode for part in encoded), key=lambda stage: stage.seconds)
        stages["search"] = outcome.search
        batch_size = encoded[0].batch_size if len(encoded) == 1 else None
        return QueryAnswer(page, stages, batch_size=batch_size, vectors=vectors)

    async def _browse(self, query: Query, state: SearchableCollection) -> QueryAnswer:
        """The first look at the ids of a large collection reads them all, so this is for the search thread."""
        found = await asyncio.get_running_loop().run_in_executor(self._searches, browse, query, state)
        page = RenderedPage(
            results=render_listed(found.offset + 1, state.fragments("images", found.rows)),
            total=len(found.rows),
            next_offset=found.next_offset,
            truncated=False,
        )
        return QueryAnswer(page, {"search": found.search})

    async def _find(self, query: Query, vectors: Vectors, state: SearchableCollection) -> SearchOutcome:
        """Search in the event loop, or in the search thread what may take longer than others should wait.

        A short search takes less time than its thread would wait for the GIL. What waits for another engine has
        threads of its own, since most of the time it holds neither a core nor the GIL. Raises IndexAway.
        """
        if _is_short(query, state):
            with contextlib.suppress(BeyondFront):
                return self.retriever.answer(query, vectors, collection=state, front_only=True)
        search = partial(self.retriever.answer, query, vectors, collection=state)
        threads = self._asks if state.index(query.target).spec.is_elsewhere else self._searches
        return await asyncio.get_running_loop().run_in_executor(threads, search)

    async def _encode(
        self, number: int, part: QueryPart, prepared: "_Prepared", state: SearchableCollection
    ) -> Encoded:
        content = part.content
        if isinstance(content, StoredImage):
            return _kept(await self._stored_vector(content.image_id, state))
        if isinstance(content, str):
            tokens = prepared.tokens[QueryText(content, part.language)]
            if isinstance(tokens, InvalidQuery):
                raise PartRejected(number, tokens, "language")
            async with prepared.turns:
                return await self._encode_tokens(tokens)
        if isinstance(image := prepared.images[content.key], ImageRejected):
            raise PartRejected(number, image)
        return image

    async def _stored_vector(self, image_id: str, state: SearchableCollection) -> Vectors:
        """The vector of an image of the collection, which an engine elsewhere may have to be asked for."""
        if not state.index("images").spec.is_elsewhere:
            return state.stored_vector(image_id)
        return await asyncio.get_running_loop().run_in_executor(self._asks, state.stored_vector, image_id)

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

    async def _encode_images(
        self, images: Mapping[str, QueryImage]
    ) -> tuple[dict[str, Encoded | ImageRejected], Stage | None]:
        """The vectors of images by their keys, or why there are none, and how long a decoder worked on them.

        ``max_pixels`` bounds all images of a request together. They are decoded one after the other, and the pixels of
        a few wait for the encoder at once: those of a thousand small images would be 600 MB.
        """
        if not images:
            return {}, None
        found: dict[str, Encoded | ImageRejected] = {}
        encoding: list[asyncio.Task[None]] = []
        decode: Stage | None = None
        turns = asyncio.Semaphore(IMAGES_A_PLACE)

        async def encode(key: str, pixels: Pixels) -> None:
            try:
                found[key] = await self._encode_pixels(key, pixels)
            finally:
                turns.release()

        for key in images:
            if (known := self._known(key)) is not None:
                found[key] = known
        new = {key: image for key, image in images.items() if key not in found}
        all_decoded = decode_together(self._decoders, new.values(), self._limits, self.retriever.encoder)
        keys = iter(new)
        try:
            async for decoded in all_decoded:
                key = next(keys)
                if isinstance(decoded, ImageRejected):
                    found[key] = decoded
                    continue
                start, seconds = decode or Stage(decoded.stage.start, 0.0)
                decode = Stage(start, seconds + decoded.stage.seconds)
                await turns.acquire()
                encoding.append(asyncio.create_task(encode(key, decoded.pixels)))
            await asyncio.gather(*encoding)
        except BaseException:
            for task in encoding:
                task.cancel()
            raise
        return found, decode


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The vector of a text, the tokens that the model reads of it, and whether it reads only its beginning."""

    encoded: Encoded
    tokens: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class EncodedInputs:
    """The vectors of texts, and of images by their keys, or why there are none."""

    texts: Mapping[str, EncodedText]
    images: Mapping[str, Encoded | ImageRejected]
    decode: Stage | None
    """When the images were decoded; None without new ones."""

    @property
    def stages(self) -> dict[str, Stage]:
        """Decoding, and the longest wait for a batch."""
        each = [text.encoded.encode for text in self.texts.values()]
        each += [image.encode for image in self.images.values() if isinstance(image, Encoded)]
        stages = {"encode": max(each, key=lambda stage: stage.seconds)} if each else {}
        return stages if self.decode is None else {"decode": self.decode, **stages}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What was done for the parts of all queries of a request before any of them was encoded."""

    tokens: Mapping[QueryText, Tokens | InvalidQuery]
    images: Mapping[str, Encoded | ImageRejected]
    """The vectors of images, by key, or why there are none."""
    decode: Stage | None
    turns: asyncio.Semaphore
    """Lets a few texts of the request wait for the encoder at once. A thousand take it 18 seconds; in between it takes
    those of others."""

    def is_cut(self, text: QueryText) -> bool:
        """Whether the model reads only the beginning of ``text``."""
        tokens = self.tokens[text]
        return isinstance(tokens, Tokens) and tokens.is_cut


async def _together(each: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What each of them returns, in order. One alone, which is most of them, needs no task of its own."""
    if len(each) == 1:
        return [await each[0]]
    return await asyncio.gather(*each)


async def _with_keys(images: Iterable[QueryImage]) -> list[QueryImage]:
    """The images, whose keys are known from now on; those of large ones are computed beside the event loop."""
    each = list(images)
    await read_by_size(*_sizes_and_keys(each))
    return each


def _sizes_and_keys(images: Iterable[QueryImage]) -> tuple[int, Callable[[], object]]:
    """How many bytes there are to be read for the keys of images, and what reads them."""
    each = list(images)
    return sum(image.size for image in each), lambda: [image.key for image in each]


def _wrong(query: Query, state: SearchableCollection) -> InvalidQuery | None:
    """What this state can never answer, before anything is encoded."""
    try:
        check_mode(query, state)
        state.check_where(query.where or {})
    except InvalidQuery as error:
        return error
    return None


def _search_apart() -> None:
    search_on_one_thread()
    keep_off()


def _is_short(query: Query, state: SearchableCollection) -> bool:
    """Whether the front of the ranking, which is most often enough, is found within half a millisecond or so."""
    index = state.index(query.target)
    compared = index.compared_values
    if asks_captions(query, state):
        compared += state.index("captions").compared_values
    if index.spec.is_elsewhere or compared > EXACT_VALUES_IN_LOOP:
        return False
    if query.mode != "vector" and (state.words is None or state.words.documents(query.target) > WORDS_IN_LOOP):
        return False
    if query.where is None:
        return True
    # An approximate index may answer a filtered query by exact search.
    small = index.spec.rows * index.spec.dim <= EXACT_VALUES_IN_LOOP
    return small and state.keeps_mask(query.target, query.where)


def _kept(vector: Vectors) -> Encoded:
    """A vector that had not to be encoded: no time, no batch."""
    return Encoded(vector, Stage(time.perf_counter(), 0.0), 0)
