"""Queries encoded a batch at a time, then searched one by one with the records looked up.

Knows nothing of HTTP and nothing of how a batch came to be. A batch fails whole, so everything in it has been decoded
and validated before: texts are not empty, pictures are preprocessed pixels.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from cachetools import LRUCache

from clip_retrieval.artifact import Modality
from clip_retrieval.encoders.base import Pixels, Vectors
from clip_retrieval.hits import CaptionHit, Found, ImageHit
from clip_retrieval.queries import SearchRequest
from clip_retrieval.retriever import Retriever

ENCODER_NICENESS = 10
"""How far an encoder's threads stand back (Unix niceness). An encoder keeps every core busy for a whole batch; a search
takes a fraction of a millisecond, less than a scheduler's slice that it might wait for."""


@dataclass(slots=True)
class Query:
    """One text or one preprocessed picture to encode."""

    content: str | Pixels
    abandoned: bool = False
    """Set when nobody waits for the vector any more; a batch then leaves the query out."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A query's vector, and when the batch that it was encoded in began, of ``time.perf_counter``, and how long that
    took, in seconds."""

    vector: Vectors
    start: float
    seconds: float
    batch_size: int
    """How many queries were encoded together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query found; when its own index search began, of ``time.perf_counter``, and its wall time in seconds."""

    encoded: Encoded
    images: list[ImageHit]
    captions: list[CaptionHit]
    search_start: float
    search_s: float


class Engine:
    """Answers queries for a server: encoders in threads that stand back, each query's search in the event loop.

    Texts and pictures may be encoded at the same time, one batch of each; a batch's searches are made while the next
    one is encoded. A search takes less time than its thread would wait for the interpreter's lock, which FAISS gives
    back meanwhile: p99 was 2 to 4 ms there under load, and is 0.3 to 0.9 ms in the loop. Pages of composed queries may
    take longer, so these have a thread.
    """

    def __init__(self, load: Callable[[], Retriever], *, vectors_kept: int = 0) -> None:
        """``load`` is called in an encoder's thread, so that the threads it starts stand back, too.

        The vectors of the ``vectors_kept`` latest texts are kept, for the same text with another target or ``k``.
        """
        self._texts = ThreadPoolExecutor(1, "encode-texts", initializer=_stand_back)
        self._images = ThreadPoolExecutor(1, "encode-images", initializer=_stand_back)
        self._searches = ThreadPoolExecutor(1, "search")
        self.retriever = self._texts.submit(load).result()
        self._turn = asyncio.Lock()
        self._known: LRUCache[str, Vectors] | None = LRUCache(vectors_kept) if vectors_kept else None

    async def encode_texts(self, queries: Sequence[Query]) -> list[Encoded | None]:
        """In the order of ``queries``; None for one that was abandoned."""
        return await self._encode(self._texts, partial(encode_texts, known=self._known), queries)

    async def encode_images(self, queries: Sequence[Query]) -> list[Encoded | None]:
        """In the order of ``queries``; None for one that was abandoned."""
        return await self._encode(self._images, encode_images, queries)

    async def answer(self, encoded: Encoded, target: Modality, k: int) -> Answer:
        """The ``k`` best of ``target``. Of many that want to search, each leaves others of the event loop a turn."""
        async with self._turn:
            found = answer(self.retriever, encoded, target, k)
            await asyncio.sleep(0)
        return found

    async def search(self, vector: Vectors, request: SearchRequest) -> Found:
        """The page that ``request`` asks for with its composed unit vector, found in the search thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._searches, self.retriever.find_page, vector, request)

    async def _encode(
        self,
        encoding: ThreadPoolExecutor,
        encode: Callable[[Retriever, Sequence[Query]], list[Encoded]],
        queries: Sequence[Query],
    ) -> list[Encoded | None]:
        wanted = [query for query in queries if not query.abandoned]
        if not wanted:
            return [None] * len(queries)
        loop = asyncio.get_running_loop()
        found = iter(await loop.run_in_executor(encoding, encode, self.retriever, wanted))
        chosen = {id(query) for query in wanted}
        return [next(found) if id(query) in chosen else None for query in queries]


def encode_texts(
    retriever: Retriever, queries: Sequence[Query], known: MutableMapping[str, Vectors] | None = None
) -> list[Encoded]:
    """Encode text queries as one batch in this thread, in order. ``known`` vectors are used, and new ones added."""
    start = time.perf_counter()
    texts = [str(query.content) for query in queries]
    found = {text: vector for text in texts if (vector := (known or {}).get(text)) is not None}
    new = list(dict.fromkeys(text for text in texts if text not in found))
    if new:
        encoded = dict(zip(new, retriever.encoder.encode_texts(new), strict=True))
        found |= encoded
        if known is not None:
            known.update(encoded)
    seconds = time.perf_counter() - start
    return [Encoded(found[text], start, seconds, len(texts)) for text in texts]


def encode_images(retriever: Retriever, queries: Sequence[Query]) -> list[Encoded]:
    """Encode picture queries as one batch in this thread, in order."""
    start = time.perf_counter()
    vectors = retriever.encoder.encode_pixels(np.stack([np.asarray(query.content) for query in queries]))
    seconds = time.perf_counter() - start
    return [Encoded(vector, start, seconds, len(queries)) for vector in vectors]


def answer(retriever: Retriever, encoded: Encoded, target: Modality, k: int) -> Answer:
    """The ``k`` best of ``target`` for an encoded query, with their records."""
    search_start = time.perf_counter()
    found, search_s = retriever.find(target, encoded.vector, k)
    if target == "images":
        return Answer(encoded, retriever.image_hits(found), [], search_start, search_s)
    return Answer(encoded, [], retriever.caption_hits(found), search_start, search_s)


def _stand_back() -> None:
    if sys.platform == "linux":  # elsewhere niceness is of a whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), ENCODER_NICENESS)
