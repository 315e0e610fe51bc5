"""The HTTP API: routes, validation and answers. Knows nothing of BentoML; ``service.py`` gives it a ``Backend``.

Route handlers decode and validate; only what is sound joins a batch.
"""

import asyncio
import hashlib
import time
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol

from cachetools import TTLCache
from fastapi import Depends, FastAPI, File, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval import __version__
from clip_retrieval import schemas as s
from clip_retrieval.artifact import Modality
from clip_retrieval.config import Settings
from clip_retrieval.encoders.base import Pixels
from clip_retrieval.engine import Answer
from clip_retrieval.engine import Query as EngineQuery
from clip_retrieval.errors import ImageRejected, ImageTooLarge, NotAnImage
from clip_retrieval.http_page import add_page_routes, prefers_page, thumbnail_template
from clip_retrieval.middleware import describe, error_response
from clip_retrieval.results import caption_result, image_result
from clip_retrieval.retriever import Retriever
from clip_retrieval.stats import STAGES, Recorder
from clip_retrieval.validate import Limits, decode_image

Kind = Literal["search_images", "search_text", "search_similar", "encode_text", "encode_image"]
PICTURE = "The picture: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."


async def _one_file(request: Request, file: Annotated[UploadFile, File(description=PICTURE)]) -> UploadFile:
    if (count := len((await request.form()).getlist("file"))) > 1:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"file: one picture at a time, not {count}")
    return file


Upload = Annotated[UploadFile, Depends(_one_file)]
KQuery = Annotated[int, Query(ge=1, le=s.MAX_K, description="How many results.")]

ERRORS: Mapping[int | str, dict[str, Any]] = {
    status: {"model": s.ErrorBody, "description": text}
    for status, text in {
        400: "The request is malformed.",
        413: "The body is over the limit of bytes.",
        415: "The upload is not a picture.",
        422: "A value is out of range, or the picture does not decode or is too large to decode.",
        503: "More requests than can be served; Retry-After says when to come back.",
    }.items()
}


class Backend(Protocol):
    """What answers queries: the retriever, and its batched ways in."""

    artifact: str
    retriever: Retriever

    async def answer_text(self, query: EngineQuery) -> Answer: ...

    async def answer_image(self, query: EngineQuery) -> Answer: ...

    def observe(self, stage: str, seconds: float) -> None:
        """Take one stage's latency into the exported histograms."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a search found; ``stages`` has the seconds of the stages that it went through, none if it was cached."""

    answer: Answer
    cut: bool
    stages: Mapping[str, float]
    cached: bool = False


@dataclass
class _State:
    """All that a server process keeps between requests."""

    settings: Settings
    recorder: Recorder
    cache: "TTLCache[Hashable, _Found]"
    decoders: ThreadPoolExecutor
    limits: Limits
    backend: Backend | None = None

    @property
    def ready(self) -> Backend:
        if self.backend is None:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "the service is starting; try again in a moment")
        return self.backend


def create_app(settings: Settings) -> FastAPI:
    """The application; set ``app.state.api.backend`` before the first query."""
    app: FastAPI = FastAPIOffline(
        title="bento-clip",
        version=__version__,
        summary="Text to pictures, picture to captions, picture to pictures.",
        openapi_url="/docs.json",
        docs_url="/docs",
        redoc_url="/redoc",
    )
    state = _State(
        settings=settings,
        recorder=Recorder(),
        cache=TTLCache(settings.cache_size, settings.cache_ttl_s),
        decoders=ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode"),
        limits=Limits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels),
    )
    app.state.api = state
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ImageRejected, _rejected)
    _add_info_routes(app, state)
    _add_query_routes(app, state)
    return app


def _add_info_routes(app: FastAPI, state: _State) -> None:
    page = add_page_routes(app, lambda: state.ready)

    @app.head("/", include_in_schema=False)
    @app.get("/", response_model=s.ServiceInfo, summary="What is served here; to a browser, the search page")
    async def info(request: Request, response: Response) -> Any:
        if prefers_page(request.headers.get("accept", "")):
            return page.response(request.headers.get("if-none-match", ""))
        response.headers["Vary"] = "Accept"
        backend = state.ready
        manifest = backend.retriever.artifact.manifest
        notes = []
        if manifest.data.captions == 0:
            notes.append("This collection has no captions, so POST /search/text finds nothing; picture search is on.")
        return s.ServiceInfo(
            name="bento-clip",
            version=__version__,
            model=manifest.encoder.name,
            images=manifest.data.images,
            captions=manifest.data.captions,
            artifact=backend.artifact,
            links={"docs": "/docs", "redoc": "/redoc", "openapi": "/docs.json", "metrics": "/metrics"}
            | thumbnail_template(backend.retriever.artifact),
            notes=notes,
        )

    @app.get("/health", response_model=s.Health, summary="Whether queries can be answered")
    async def health() -> s.Health:
        ready = state.backend is not None
        return s.Health(
            status="healthy" if ready else "starting",
            timestamp=datetime.now(UTC),
            model_loaded=ready,
            indexes_loaded=ready,
            uptime_seconds=state.recorder.uptime_s,
            artifact=state.backend.artifact if state.backend else None,
        )

    @app.get("/stats", response_model=s.Stats, summary="Counts and latencies since the start, of this process")
    async def stats() -> s.Stats:
        return state.recorder.snapshot(len(state.cache))

    @app.post("/cache/clear", response_model=s.CacheCleared, summary="Empty the result cache")
    async def clear() -> s.CacheCleared:
        previous = len(state.cache)
        state.cache.clear()
        return s.CacheCleared(
            message=f"{previous} cached results dropped", previous_cache_size=previous, current_cache_size=0
        )


def _add_query_routes(app: FastAPI, state: _State) -> None:
    @app.post("/search/images", response_model=s.ImagesAnswer, responses={**ERRORS}, summary="Text to pictures")
    async def search_images(body: s.SearchImagesRequest) -> Response:
        request = _Request(state, "search_images", body.text)
        return request.images(await request.find_for_text("images", body.text, body.k))

    @app.post("/search/text", response_model=s.CaptionsAnswer, responses={**ERRORS}, summary="Picture to captions")
    async def search_text(file: Upload, k: KQuery = s.DEFAULT_K) -> Response:
        request = _Request(state, "search_text", file.filename or "")
        return request.captions(await request.find_for_image("captions", await file.read(), k))

    @app.post("/search/similar", response_model=s.ImagesAnswer, responses={**ERRORS}, summary="Picture to pictures")
    async def search_similar(file: Upload, k: KQuery = s.DEFAULT_K) -> Response:
        request = _Request(state, "search_similar", file.filename or "")
        return request.images(await request.find_for_image("images", await file.read(), k))

    @app.post("/encode/text", response_model=s.TextEmbedding, responses={**ERRORS}, summary="Text to its vector")
    async def encode_text(body: s.EncodeTextRequest) -> Response:
        request = _Request(state, "encode_text", body.text)
        answer = await state.ready.answer_text(EngineQuery(body.text))
        vector = answer.vector.tolist()
        return request.respond(
            s.TextEmbedding(
                embedding=vector, dimension=len(vector), text=body.text, truncated=request.is_cut(body.text)
            ),
            {"encode": answer.encode_s},
        )

    @app.post(
        "/encode/image",
        response_model=s.ImageEmbedding,
        responses={**ERRORS},
        summary="Picture to its vector",
    )
    async def encode_image(file: Upload) -> Response:
        request = _Request(state, "encode_image", file.filename or "")
        pixels, decode_s = await request.decode(await file.read())
        answer = await state.ready.answer_image(EngineQuery(pixels))
        vector = answer.vector.tolist()
        return request.respond(
            s.ImageEmbedding(embedding=vector, dimension=len(vector), filename=request.name),
            {"decode": decode_s, "encode": answer.encode_s},
        )


class _Request:
    """One query on its way: its name, its clock and its answer."""

    def __init__(self, state: _State, kind: Kind, name: str) -> None:
        self._state = state
        self._kind = kind
        self._start = time.perf_counter()
        self._backend = state.ready
        self.name = name

    def is_cut(self, text: str) -> bool:
        return self._backend.retriever.encoder.is_cut(text)

    async def find_for_text(self, target: Modality, text: str, k: int) -> _Found:
        key = (self._kind, text, k)
        if (found := self._cached(key)) is not None:
            return found
        answer = await self._backend.answer_text(EngineQuery(text, target, k))
        stages = {"encode": answer.encode_s, "search": answer.search_s}
        return self._keep(key, _Found(answer, self.is_cut(text), stages))

    async def find_for_image(self, target: Modality, data: bytes, k: int) -> _Found:
        key = (self._kind, hashlib.sha256(data).digest(), k)
        if (found := self._cached(key)) is not None:
            return found
        pixels, decode_s = await self.decode(data)
        answer = await self._backend.answer_image(EngineQuery(pixels, target, k))
        stages = {"decode": decode_s, "encode": answer.encode_s, "search": answer.search_s}
        return self._keep(key, _Found(answer, False, stages))

    async def decode(self, data: bytes) -> tuple[Pixels, float]:
        """Decode and preprocess an upload in a decoder thread; also the seconds that this took."""

        def work() -> tuple[Pixels, float]:
            start = time.perf_counter()
            pixels = self._backend.retriever.encoder.preprocess(decode_image(data, self._state.limits))
            return pixels, time.perf_counter() - start

        return await asyncio.get_running_loop().run_in_executor(self._state.decoders, work)

    def images(self, found: _Found) -> Response:
        """The answer with the pictures that were found."""
        results = [image_result(hit) for hit in found.answer.images]
        return self._respond_found(s.ImagesAnswer(results=results, **self._common(found, len(results))), found)

    def captions(self, found: _Found) -> Response:
        """The answer with the captions that were found."""
        results = [caption_result(hit) for hit in found.answer.captions]
        return self._respond_found(s.CaptionsAnswer(results=results, **self._common(found, len(results))), found)

    def respond(self, body: BaseModel, stages: Mapping[str, float]) -> Response:
        """The answer, with its stages counted and in ``Server-Timing`` (W3C Server Timing, milliseconds)."""
        stages = {**stages, "total": time.perf_counter() - self._start}
        self._state.recorder.add(self._kind, stages)
        for stage, seconds in stages.items():
            self._backend.observe(stage, seconds)
        timing = ", ".join(f"{stage};dur={stages.get(stage, 0) * 1e3:.3f}" for stage in STAGES)
        return Response(body.model_dump_json(), media_type="application/json", headers={"Server-Timing": timing})

    def _respond_found(self, body: BaseModel, found: _Found) -> Response:
        response = self.respond(body, found.stages)
        if found.cached:
            response.headers["Server-Timing"] += ", cache;desc=hit"
        return response

    def _common(self, found: _Found, total: int) -> dict[str, Any]:
        return {
            "query": self.name,
            "query_type": "text" if self._kind == "search_images" else "image",
            "total_results": total,
            "query_time_ms": (time.perf_counter() - self._start) * 1e3,
            "cached": found.cached,
            "truncated": found.cut,
        }

    def _cached(self, key: Hashable) -> _Found | None:
        found = self._state.cache.get(key)
        if found is None:
            self._state.recorder.cache_misses += 1
        else:
            self._state.recorder.cache_hits += 1
        return found

    def _keep(self, key: Hashable, found: _Found) -> _Found:
        if self._state.settings.cache_size:
            self._state.cache[key] = _Found(found.answer, found.cut, {}, cached=True)
        return found


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "json_invalid":
            detail = f"the body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}"
            return error_response(HTTPStatus.BAD_REQUEST, detail)
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, describe(problems))


async def _rejected(_: Request, error: Exception) -> Response:
    if isinstance(error, NotAnImage):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    elif isinstance(error, ImageTooLarge):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    else:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    return error_response(status, str(error))
