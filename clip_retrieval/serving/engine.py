"""Queries answered a batch at a time: encode them together, then search each.

Knows nothing of HTTP and nothing of how a batch came to be. A batch fails whole, so everything in it has been decoded
and validated before: texts are not empty, images are preprocessed pixels.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from cachetools import LRUCache

from clip_retrieval.contract.queries import SearchRequest
from clip_retrieval.encoders.base import Encoder, Pixels, Tokens, Vectors
from clip_retrieval.records import Hit, Modality
from clip_retrieval.search.hits import CaptionHit, Found, ImageHit
from clip_retrieval.search.retriever import Retriever

ENCODER_NICENESS = 10
"""How far an encoder's threads stand back (Unix niceness). An encoder keeps every core busy for a whole batch; a search
takes a fraction of a millisecond, less than a scheduler's slice that it might wait for."""


@dataclass(slots=True)
class Query:
    """One text or one preprocessed image, and what to find for it; with ``target`` None only its vector is wanted.

    A text that is not tokenised yet is so with its batch, and the encoder waits for that.
    """

    content: str | Tokens | Pixels
    target: Modality | None = None
    k: int = 0
    abandoned: bool = False
    """Set when nobody waits for the answer any more; a batch then leaves the query out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query got. ``encode_s`` is the wall time of its batch's encoding, ``search_s`` that of its own index
    search, both in seconds; they began at ``encode_start`` and ``search_start`` of ``time.perf_counter``.

    Records are looked up when they are asked for: by then the next batch is being encoded. They are not kept with the
    answer: caches hold thousands of answers, and the garbage collector would look through every record of each.
    """

    vector: Vectors
    target: Modality | None
    hits: Sequence[Hit]
    encode_start: float
    encode_s: float
    search_start: float
    search_s: float
    batch_size: int
    """How many queries were encoded together."""
    retriever: Retriever = field(repr=False)

    @property
    def images(self) -> list[ImageHit]:
        """The images that were found."""
        return self.retriever.image_hits(self.hits) if self.target == "images" else []

    @property
    def captions(self) -> list[CaptionHit]:
        """The captions that were found."""
        return self.retriever.caption_hits(self.hits) if self.target == "captions" else []


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors (n, dim) of a batch of queries, when their encoding began and the seconds it took."""

    vectors: Vectors
    start: float
    seconds: float


class Engine:
    """Answers batches for a server: what computes stands back, each query's search in the event loop.

    Texts and images may be answered at the same time, and of texts as many batches as the encoder says. A search
    takes less time than its thread would wait for the interpreter's lock, which FAISS gives back meanwhile: p99 was 2
    to 4 ms there under load, and is 0.3 to 0.9 ms in the loop. Pages of composed queries may take longer, so these
    have a thread.
    """

    def __init__(self, load: Callable[[], Retriever], *, vectors_kept: int = 0) -> None:
        """``load`` is called in a thread that stands back, as do all that it starts: OpenVINO's, which compute.

        Those that only hand them the batches do not: they would be kept waiting while they hold the interpreter's lock.
        torch computes in the thread that asks, so that one stands back. The vectors of the ``vectors_kept`` latest
        texts are kept, for the same tokens with another target or ``k``.
        """
        with ThreadPoolExecutor(1, "load", initializer=_stand_back) as loading:
            self.retriever = loading.submit(load).result()
        asks_only = self.retriever.encoder.owns_threads
        self.text_batches_at_once = self.retriever.encoder.text_batches_at_once
        """How many batches of texts to answer at the same time; of images one."""
        self._texts, self._images = (
            ThreadPoolExecutor(threads, f"encode-{kind}", initializer=None if asks_only else _stand_back)
            for kind, threads in (("texts", self.text_batches_at_once), ("images", 1))
        )
        self._searches = ThreadPoolExecutor(1, "search")
        self._known: LRUCache[Tokens, Vectors] | None = LRUCache(vectors_kept) if vectors_kept else None

    async def answer_texts(self, queries: Sequence[Query]) -> list[Answer | None]:
        """Answers in the order of ``queries``; None for one that was abandoned."""
        return await self._answer(self._encode_texts, queries)

    async def answer_images(self, queries: Sequence[Query]) -> list[Answer | None]:
        """Answers in the order of ``queries``; None for one that was abandoned."""
        return await self._answer(self._encode_images, queries)

    async def search(self, vector: Vectors, request: SearchRequest) -> Found:
        """The page that ``request`` asks for with its composed unit vector, found in the search thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._searches, self.retriever.find_page, vector, request)

    async def _answer(
        self, encode: Callable[[Sequence[Query]], Awaitable[Encoded]], queries: Sequence[Query]
    ) -> list[Answer | None]:
        wanted = [query for query in queries if not query.abandoned]
        if not wanted:
            return [None] * len(queries)
        encoded = await encode(wanted)
        answers = []
        for query, vector in zip(wanted, encoded.vectors, strict=True):
            answers.append(self._found(query, vector, encoded))
            await asyncio.sleep(0)  # others get their turn after each search, which is all that holds them up
        found = iter(answers)
        chosen = {id(query) for query in wanted}
        return [next(found) if id(query) in chosen else None for query in queries]

    async def _encode_texts(self, queries: Sequence[Query]) -> Encoded:
        """Texts that are known are not encoded, and equal ones once."""
        start = time.perf_counter()
        encoder = self.retriever.encoder
        texts = [query.content for query in queries if isinstance(query.content, Tokens)]
        if len(texts) < len(queries):  # long texts would hold the event loop up
            texts = await asyncio.get_running_loop().run_in_executor(self._texts, _tokens, encoder, queries)
        known = self._known if self._known is not None else {}
        vectors = {text: vector for text in texts if (vector := known.get(text)) is not None}
        end = start
        if new := list(dict.fromkeys(text for text in texts if text not in vectors)):
            # Prepared here: in the other thread it would want the interpreter while another batch is searched.
            encoded, end = await self._in_thread(self._texts, encoder.prepare_tokens(new))
            added = dict(zip(new, encoded, strict=True))
            vectors |= added
            if self._known is not None:
                self._known.update(added)
        return Encoded(np.stack([vectors[text] for text in texts]), start, end - start)

    async def _encode_images(self, queries: Sequence[Query]) -> Encoded:
        def compute() -> Vectors:
            return self.retriever.encoder.encode_pixels(np.stack([np.asarray(query.content) for query in queries]))

        start = time.perf_counter()
        vectors, end = await self._in_thread(self._images, compute)
        return Encoded(vectors, start, end - start)

    @staticmethod
    async def _in_thread(thread: ThreadPoolExecutor, compute: Callable[[], Vectors]) -> tuple[Vectors, float]:
        """What was computed, and when that ended: the event loop may come to it later."""
        return await asyncio.get_running_loop().run_in_executor(thread, lambda: (compute(), time.perf_counter()))

    def _found(self, query: Query, vector: Vectors, encoded: Encoded) -> Answer:
        """What one query finds with its vector; without a target it finds nothing."""
        hits: list[Hit] = []
        search_start = time.perf_counter()
        search_s = 0.0
        if query.target is not None:
            hits, search_s = self.retriever.find(query.target, vector, query.k)
        return Answer(
            vector,
            query.target,
            hits,
            encoded.start,
            encoded.seconds,
            search_start,
            search_s,
            len(encoded.vectors),
            self.retriever,
        )


def _tokens(encoder: Encoder, queries: Sequence[Query]) -> list[Tokens]:
    return [one if isinstance(one := query.content, Tokens) else encoder.tokenize(str(one)) for query in queries]


def _stand_back() -> None:
    if sys.platform == "linux":  # elsewhere niceness is of a whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), ENCODER_NICENESS)
