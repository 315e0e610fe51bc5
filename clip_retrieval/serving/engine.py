"""Encodes batches of texts and images for a server, in threads of low priority.

Knows nothing of HTTP, of searching and of how a batch came to be. A batch fails whole, so everything in it has been
decoded and validated before: texts are not empty, images are preprocessed pixels.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clip_retrieval.encoders.base import Encoder, Pixels, Tokens, Vectors
from clip_retrieval.records import MODALITIES
from clip_retrieval.search.query import Query, QueryPart
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.batch_watch import BatchWatch
from clip_retrieval.serving.budget import held_memory
from clip_retrieval.serving.priority import lower_priority
from clip_retrieval.serving.request_id import CURRENT
from clip_retrieval.stages import Stage


@dataclass(slots=True)
class EncodeJob:
    """One text or one preprocessed image that waits for its batch.

    A text that is not tokenised yet is tokenised in the encoder's thread, which delays its batch.
    """

    content: str | Tokens | Pixels
    language: str | None = None
    """The language of a text that is not tokenised yet; one that the encoder knows, or None for its usual one."""
    vector_only: bool = False
    """Whether the vector alone is wanted, as by BentoML's own APIs, or all of ``Encoded``."""
    abandoned: bool = False
    """Set when nobody waits for the result any more; a batch then leaves the job out."""
    engine: "Engine | None" = None
    """The engine whose vector is wanted; None means that of the artifact which is served when the batch begins."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The unit vector (dim,) of one job, when its batch was encoded, and how many jobs were encoded together."""

    vector: Vectors
    encode: Stage
    batch_size: int
    """How many jobs were encoded together; 0 for a vector that was kept from an earlier batch."""


Submit = Callable[[EncodeJob], Awaitable[Encoded]]
"""Has a job encoded, by whatever way."""

TRIAL = "a trial query"


class Engine:
    """One encoder and its threads.

    Texts and images may be encoded at the same time, and of texts as many batches as the encoder says.

    A batch of texts is prepared in the event loop, and its thread only computes: a thread that needs the GIL waits for
    it while others search. Threads that compute run at low priority, so that searches preempt them.
    """

    def __init__(self, load: Callable[[], Encoder]) -> None:
        """``load`` runs in a low-priority thread, so a runtime's worker threads inherit that priority.

        The threads that submit batches keep normal priority where the runtime computes in threads of its own: a
        low-priority thread that holds the GIL would block everyone.
        """
        self.held_before = held_memory()
        """What the process held before the encoder was loaded, in bytes."""
        with ThreadPoolExecutor(1, "load", initializer=lower_priority) as loading:
            self.encoder = loading.submit(load).result()
        self.held_by_encoder = max(0, held_memory() - self.held_before)
        """What the process holds more since, in bytes. Imports that ran meanwhile are in it."""
        initializer = None if self.encoder.owns_threads else lower_priority
        self.text_batches = BatchWatch()
        self.image_batches = BatchWatch()
        self._texts = ThreadPoolExecutor(self.encoder.text_batches_at_once, "encode-texts", initializer=initializer)
        self._images = ThreadPoolExecutor(1, "encode-images", initializer=initializer)

    def imports_have_ended(self) -> None:
        """Count what the process holds more since the encoder was loaded with what it held before: imports went on."""
        self.held_before += max(0, held_memory() - self.held_before - self.held_by_encoder)

    async def encode_texts(self, jobs: Sequence[EncodeJob]) -> list[Encoded | None]:
        """The result of each job, in order; None for one that was abandoned. Equal texts are encoded once."""
        alive = [not job.abandoned for job in jobs]
        wanted = [job for job, is_alive in zip(jobs, alive, strict=True) if is_alive]
        if not wanted:
            return [None] * len(jobs)
        return _in_order(alive, await self.text_batches.follow(self._encode_texts(wanted)))

    async def _encode_texts(self, wanted: Sequence[EncodeJob]) -> list[Encoded]:
        start = time.perf_counter()
        texts = [job.content for job in wanted if isinstance(job.content, Tokens)]
        if len(texts) < len(wanted):  # tokenising long texts would hold up the event loop
            texts = await asyncio.get_running_loop().run_in_executor(self._texts, _tokens, self.encoder, wanted)
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors, end = await self.vectors_of_texts(list(distinct))
        encode = Stage(start, end - start)
        return [Encoded(vectors[distinct[text]], encode, len(texts)) for text in texts]

    async def encode_images(self, jobs: Sequence[EncodeJob]) -> list[Encoded | None]:
        """The result of each job, in order; None for one that was abandoned."""
        alive = [not job.abandoned for job in jobs]
        wanted = [job for job, is_alive in zip(jobs, alive, strict=True) if is_alive]
        if not wanted:
            return [None] * len(jobs)
        return _in_order(alive, await self.image_batches.follow(self._encode_images(wanted)))

    async def vectors_of_texts(self, texts: Sequence[Tokens]) -> tuple[Vectors, float]:
        """The unit vectors (n, dim) of texts, which all differ, and when that ended, by ``time.perf_counter``."""
        return await _in_thread(self._texts, self.encoder.prepare_tokens(texts))

    async def vectors_of_images(self, images: Sequence[Pixels]) -> tuple[Vectors, float]:
        """The unit vectors (n, dim) of images, and when that ended."""
        return await _in_thread(self._images, lambda: self.encoder.encode_pixels(np.stack(images)))

    async def _encode_images(self, wanted: Sequence[EncodeJob]) -> list[Encoded]:
        start = time.perf_counter()
        vectors, end = await self.vectors_of_images([np.asarray(job.content) for job in wanted])
        encode = Stage(start, end - start)
        return [Encoded(vector, encode, len(wanted)) for vector in vectors]

    async def warm_up(self, retriever: Retriever) -> dict[str, float]:
        """Encode one input of each kind and search each index of ``retriever``, before the first query that counts.

        Returns how many seconds ``texts`` and ``images`` took.
        """
        start = time.perf_counter()
        await self.try_image(self.image_alone)
        middle = time.perf_counter()
        await self.try_text(self.text_alone, retriever)
        return {"images": middle - start, "texts": time.perf_counter() - middle}

    async def text_alone(self, job: EncodeJob) -> Encoded:
        """Encode one text in a batch of its own."""
        return _only(await self.encode_texts([job]))

    async def image_alone(self, job: EncodeJob) -> Encoded:
        """Encode one image in a batch of its own."""
        return _only(await self.encode_images([job]))

    async def try_image(self, submit: Submit) -> None:
        """Have one image encoded."""
        await submit(EncodeJob(self.encoder.preprocess(Image.new("RGB", (64, 64)))))

    async def try_text(self, submit: Submit, retriever: Retriever) -> None:
        """Have one text encoded and search each index of ``retriever`` in this process with it.

        An engine elsewhere says nothing about the encoder, and is asked by ``OutsideWatch``.
        """
        encoded = await submit(EncodeJob(self.encoder.tokenize(TRIAL)))
        collection = retriever.collection
        for target in MODALITIES:
            if collection.index(target).spec.is_elsewhere:
                continue
            query = Query((QueryPart(TRIAL),), target)
            outcome = retriever.answer(query, encoded.vector[None], collection=collection)
            collection.fragments(target, [hit.row for hit in outcome.hits])


async def encode_by_engine(
    jobs: Sequence[EncodeJob],
    served: Engine,
    encode: Callable[[Engine, Sequence[EncodeJob]], Awaitable[list[Encoded | None]]],
) -> list[Encoded | None]:
    """The result of each job of one batch, in order, by the engine that the job names, else by ``served``.

    While one artifact takes over from another with another encoder, a batch may hold jobs for both. BentoML runs every
    batch in the context of some request: what is logged in a batch names none.
    """
    CURRENT.set("")
    engines = [job.engine or served for job in jobs]
    distinct = list(dict.fromkeys(engines))
    if len(distinct) == 1:
        return await encode(distinct[0], jobs)
    parts = [[job for job, its in zip(jobs, engines, strict=True) if its is engine] for engine in distinct]
    each = await asyncio.gather(*(encode(engine, part) for engine, part in zip(distinct, parts, strict=True)))
    results = {engine: iter(part) for engine, part in zip(distinct, each, strict=True)}
    return [next(results[engine]) for engine in engines]


async def _in_thread(thread: ThreadPoolExecutor, compute: Callable[[], Vectors]) -> tuple[Vectors, float]:
    """What was computed, and when that ended: the event loop may come to it later."""
    return await asyncio.get_running_loop().run_in_executor(thread, lambda: (compute(), time.perf_counter()))


def _only(results: Sequence[Encoded | None]) -> Encoded:
    [encoded] = results
    assert encoded is not None, "the job was not abandoned"
    return encoded


def _in_order(alive: Sequence[bool], results: Sequence[Encoded]) -> list[Encoded | None]:
    """One result a job: those that were encoded, and None for those that were not alive when their batch began."""
    remaining = iter(results)
    return [next(remaining) if is_alive else None for is_alive in alive]


def _tokens(encoder: Encoder, jobs: Sequence[EncodeJob]) -> list[Tokens]:
    return [
        job.content if isinstance(job.content, Tokens) else encoder.tokenize(str(job.content), job.language)
        for job in jobs
    ]
