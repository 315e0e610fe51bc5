"""Encodes batches of texts and images for a server, in threads of low priority.

Knows nothing of HTTP, of searching and of how a batch came to be. A batch fails whole, so everything in it has been
decoded and validated before: texts are not empty, images are preprocessed pixels.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clip_retrieval.encoders.base import Encoder, Pixels, Tokens, Vectors
from clip_retrieval.records import MODALITIES
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.stages import Stage

ENCODER_NICENESS = 10
"""Unix niceness of the threads that compute. An encoder keeps every core busy for a whole batch; a search takes a
fraction of a millisecond, less than a scheduler's slice that it might wait for."""


@dataclass(slots=True)
class EncodeJob:
    """One text or one preprocessed image that waits for its batch.

    A text that is not tokenised yet is tokenised in the encoder's thread, which delays its batch.
    """

    content: str | Tokens | Pixels
    vector_only: bool = False
    """Whether the vector alone is wanted, as by BentoML's own APIs, or all of ``Encoded``."""
    abandoned: bool = False
    """Set when nobody waits for the result any more; a batch then leaves the job out."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The unit vector (dim,) of one job, when its batch was encoded, and how many jobs were encoded together."""

    vector: Vectors
    encode: Stage
    batch_size: int
    """How many jobs were encoded together; 0 for a vector that was kept from an earlier batch."""


class Engine:
    """Texts and images may be encoded at the same time, and of texts as many batches as the encoder says.

    A batch of texts is prepared in the event loop, and its thread only computes: a thread that needs the GIL waits for
    it while others search. Threads that compute run at low priority, so that searches preempt them.
    """

    def __init__(self, load: Callable[[], Retriever]) -> None:
        """``load`` runs in a low-priority thread, so a runtime's worker threads inherit that priority.

        The threads that submit batches keep normal priority where the runtime computes in threads of its own: a
        low-priority thread that holds the GIL would block everyone.
        """
        with ThreadPoolExecutor(1, "load", initializer=lower_priority) as loading:
            self.retriever = loading.submit(load).result()
        initializer = None if self.encoder.owns_threads else lower_priority
        self._texts = ThreadPoolExecutor(self.encoder.text_batches_at_once, "encode-texts", initializer=initializer)
        self._images = ThreadPoolExecutor(1, "encode-images", initializer=initializer)

    @property
    def encoder(self) -> Encoder:
        return self.retriever.encoder

    async def encode_texts(self, jobs: Sequence[EncodeJob]) -> list[Encoded | None]:
        """The result of each job, in order; None for one that was abandoned. Equal texts are encoded once."""
        alive = [not job.abandoned for job in jobs]
        wanted = [job for job, is_alive in zip(jobs, alive, strict=True) if is_alive]
        if not wanted:
            return [None] * len(jobs)
        start = time.perf_counter()
        texts = [job.content for job in wanted if isinstance(job.content, Tokens)]
        if len(texts) < len(wanted):  # tokenising long texts would hold up the event loop
            texts = await asyncio.get_running_loop().run_in_executor(self._texts, _tokens, self.encoder, wanted)
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors, end = await _in_thread(self._texts, self.encoder.prepare_tokens(list(distinct)))
        encode = Stage(start, end - start)
        return _in_order(alive, [Encoded(vectors[distinct[text]], encode, len(texts)) for text in texts])

    async def encode_images(self, jobs: Sequence[EncodeJob]) -> list[Encoded | None]:
        """The result of each job, in order; None for one that was abandoned."""
        alive = [not job.abandoned for job in jobs]
        wanted = [job for job, is_alive in zip(jobs, alive, strict=True) if is_alive]
        if not wanted:
            return [None] * len(jobs)

        def compute() -> Vectors:
            return self.encoder.encode_pixels(np.stack([np.asarray(job.content) for job in wanted]))

        start = time.perf_counter()
        vectors, end = await _in_thread(self._images, compute)
        encode = Stage(start, end - start)
        return _in_order(alive, [Encoded(vector, encode, len(wanted)) for vector in vectors])

    async def warm_up(self) -> None:
        """Encode one input of each kind and search each index, before the first query that counts."""
        blank = self.encoder.preprocess(Image.new("RGB", (64, 64)))
        await self.encode_images([EncodeJob(blank)])
        for encoded in await self.encode_texts([EncodeJob("warm-up")]):
            assert encoded is not None, "the job was not abandoned"
            collection = self.retriever.collection
            for target in MODALITIES:
                query = Query((QueryPart("warm-up"),), target)
                outcome = self.retriever.answer(query, encoded.vector[None], collection=collection)
                collection.fragments(target, [hit.row for hit in outcome.hits])


async def _in_thread(thread: ThreadPoolExecutor, compute: Callable[[], Vectors]) -> tuple[Vectors, float]:
    """What was computed, and when that ended: the event loop may come to it later."""
    return await asyncio.get_running_loop().run_in_executor(thread, lambda: (compute(), time.perf_counter()))


def _in_order(alive: Sequence[bool], results: Sequence[Encoded]) -> list[Encoded | None]:
    """One result a job: those that were encoded, and None for those that were not alive when their batch began."""
    remaining = iter(results)
    return [next(remaining) if is_alive else None for is_alive in alive]


def _tokens(encoder: Encoder, jobs: Sequence[EncodeJob]) -> list[Tokens]:
    return [job.content if isinstance(job.content, Tokens) else encoder.tokenize(str(job.content)) for job in jobs]


def lower_priority() -> None:
    """Have the calling thread wait for searches."""
    if sys.platform == "linux":  # elsewhere niceness is of a whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), ENCODER_NICENESS)
