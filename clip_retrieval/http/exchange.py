"""One request of the HTTP API on its way: what the process keeps for all of them, and its clock, cache and answer.

Knows no route. ``service.py`` gives the process its ``Backend``.
"""

import asyncio
import hashlib
import time
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, Literal, Protocol, TypeVar

from cachetools import LRUCache, TTLCache
from opentelemetry.trace import NoOpTracer, Tracer
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.contract.answers import CaptionsAnswer, ImagesAnswer
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.queries import SearchRequest
from clip_retrieval.encoders.base import Pixels, Tokens, Vectors
from clip_retrieval.images.decode import Limits, decode_image
from clip_retrieval.records import Modality
from clip_retrieval.search.hits import Found
from clip_retrieval.search.results import caption_result, image_result
from clip_retrieval.search.retriever import Retriever
from clip_retrieval.serving.engine import Answer
from clip_retrieval.serving.engine import Query as EngineQuery
from clip_retrieval.serving.latencies import STAGES, Recorder
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.tracing import Stage, record_stages

Kind = Literal[
    "search_images", "search_text", "search_similar", "encode_text", "encode_image", "search", "search_batch"
]

A = TypeVar("A", Answer, Found)

ERRORS: Mapping[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is malformed.",
        413: "The body is over the limit of bytes.",
        415: "The upload is not an image.",
        422: "A value is out of range, or the image does not decode or is too large to decode.",
        503: "More requests than can be served; Retry-After says when to come back.",
    }.items()
}


class Backend(Protocol):
    """What answers queries: the retriever, and its batched ways in."""

    artifact: str
    retriever: Retriever

    async def answer_text(self, query: EngineQuery) -> Answer: ...

    async def answer_image(self, query: EngineQuery) -> Answer: ...

    async def search(self, vector: Vectors, request: SearchRequest) -> Found: ...

    def observe(self, stage: str, seconds: float) -> None:
        """Take one stage's latency into the exported histograms."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[A]):
    """What a search found; ``stages`` has the stages that it went through, none if it was cached."""

    answer: A
    cut: bool
    stages: Mapping[str, Stage]
    cached: bool = False


@dataclass
class State:
    """All that a server process keeps between requests."""

    settings: Settings
    recorder: Recorder
    cache: "TTLCache[Hashable, Any]"
    vectors: "LRUCache[Hashable, tuple[Vectors, bool]]"
    """Composed query vectors, each with whether a text of it was cut: the pages of a search come from one vector."""
    decoders: ThreadPoolExecutor
    limits: Limits
    backend: Backend | None = None
    tracer: Tracer = field(default_factory=NoOpTracer)

    @property
    def ready(self) -> Backend:
        if self.backend is None:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "the service is starting; try again in a moment")
        return self.backend


class Exchange:
    """One query on its way: its name, its clock and its answer."""

    def __init__(self, state: State, kind: Kind, name: str) -> None:
        self._state = state
        self._kind = kind
        self._start = time.perf_counter()
        self.backend = state.ready
        self.name = name

    @property
    def so_far_ms(self) -> float:
        """Milliseconds since the request was parsed."""
        return (time.perf_counter() - self._start) * 1e3

    def tokenize(self, text: str) -> Tokens:
        return self.backend.retriever.encoder.tokenize(text)

    async def find_for_text(self, target: Modality, text: str, k: int) -> Outcome[Answer]:
        key = (self._kind, text, k)
        found: Outcome[Answer] | None = self.cached(key)
        if found is not None:
            return found
        tokens = self.tokenize(text)
        answer = await self.backend.answer_text(EngineQuery(tokens, target, k))
        return self.keep(key, Outcome(answer, tokens.is_cut, stages_of(answer)))

    async def find_for_image(self, target: Modality, data: bytes, k: int) -> Outcome[Answer]:
        key = (self._kind, hashlib.sha256(data).digest(), k)
        found: Outcome[Answer] | None = self.cached(key)
        if found is not None:
            return found
        pixels, decoding = await self.decode(data)
        answer = await self.backend.answer_image(EngineQuery(pixels, target, k))
        return self.keep(key, Outcome(answer, False, {"decode": decoding, **stages_of(answer)}))

    async def decode(self, data: bytes) -> tuple[Pixels, Stage]:
        """Decode and preprocess an upload in a decoder thread; also when that was."""

        def work() -> tuple[Pixels, Stage]:
            start = time.perf_counter()
            pixels = self.backend.retriever.encoder.preprocess(decode_image(data, self._state.limits))
            return pixels, Stage(start, time.perf_counter() - start)

        return await asyncio.get_running_loop().run_in_executor(self._state.decoders, work)

    def images(self, found: Outcome[Answer]) -> Response:
        """The answer with the images that were found."""
        results = [image_result(hit) for hit in found.answer.images]
        return self.respond_found(ImagesAnswer(results=results, **self._common(found, len(results))), found)

    def captions(self, found: Outcome[Answer]) -> Response:
        """The answer with the captions that were found."""
        results = [caption_result(hit) for hit in found.answer.captions]
        return self.respond_found(CaptionsAnswer(results=results, **self._common(found, len(results))), found)

    def respond(self, body: BaseModel, stages: Mapping[str, Stage], batch_size: int | None = None) -> Response:
        """The answer, with its stages traced, counted and in ``Server-Timing`` (W3C Server Timing, milliseconds).

        ``batch_size`` is the number of queries that were encoded together, where it was one batch.
        """
        record_stages(
            self._state.tracer, stages, {"encode": {"bento_clip.batch_size": batch_size}} if batch_size else {}
        )
        times = {name: stage.seconds for name, stage in stages.items()}
        times["total"] = time.perf_counter() - self._start
        self._state.recorder.add(self._kind, times)
        for stage, seconds in times.items():
            self.backend.observe(stage, seconds)
        timing = ", ".join(f"{stage};dur={times.get(stage, 0) * 1e3:.3f}" for stage in STAGES)
        return Response(body.model_dump_json(), media_type="application/json", headers={"Server-Timing": timing})

    def respond_found(self, body: BaseModel, found: Outcome[Any]) -> Response:
        """The answer with what was found, and whether it came from the cache."""
        response = self.respond(body, found.stages, getattr(found.answer, "batch_size", None))
        if found.cached:
            response.headers["Server-Timing"] += ", cache;desc=hit"
        return response

    def _common(self, found: Outcome[Answer], total: int) -> dict[str, Any]:
        return {
            "query": self.name,
            "query_type": "text" if self._kind == "search_images" else "image",
            "total_results": total,
            "query_time_ms": self.so_far_ms,
            "cached": found.cached,
            "truncated": found.cut,
        }

    def cached(self, key: Hashable) -> Any:
        """The outcome that is kept for ``key``, or None; counted either way."""
        found = self._state.cache.get(key)
        if found is None:
            self._state.recorder.cache_misses += 1
        else:
            self._state.recorder.cache_hits += 1
        return found

    def keep(self, key: Hashable, found: Outcome[A]) -> Outcome[A]:
        """Keep an outcome for the next who asks the same; returns it."""
        if self._state.settings.cache_size:
            self._state.cache[key] = Outcome(found.answer, found.cut, {}, cached=True)
        return found


def stages_of(answer: Answer, *, searched: bool = True) -> dict[str, Stage]:
    """The stages of a query that went through the encoder."""
    stages = {"encode": Stage(answer.encode_start, answer.encode_s)}
    if searched:
        stages["search"] = Stage(answer.search_start, answer.search_s)
    return stages
