"""The HTTP API: routes, validation and answers. Knows nothing of BentoML; ``service.py`` gives it a ``Backend``.

Route handlers decode and validate; only what is sound joins a batch.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from cachetools import LRUCache, TTLCache
from fastapi import Depends, FastAPI, File, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval import __version__
from clip_retrieval.contract.answers import CaptionsAnswer, ImageEmbedding, ImagesAnswer, TextEmbedding
from clip_retrieval.contract.base import DEFAULT_K, MAX_K, describe
from clip_retrieval.contract.queries import EncodeTextRequest, SearchImagesRequest
from clip_retrieval.contract.status import CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.errors import ImageRejected, ImageTooLarge, InvalidQuery, NotAnImage
from clip_retrieval.http.composed_routes import add_search_routes
from clip_retrieval.http.exchange import ERRORS, Exchange, State, stages_of
from clip_retrieval.http.middleware import error_response
from clip_retrieval.http.page_routes import add_page_routes, prefers_page, thumbnail_template
from clip_retrieval.images.decode import Limits
from clip_retrieval.serving.engine import Query as EngineQuery
from clip_retrieval.serving.latencies import Recorder
from clip_retrieval.serving.settings import Settings

IMAGE = "The image: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."


async def _one_file(request: Request, file: Annotated[UploadFile, File(description=IMAGE)]) -> UploadFile:
    if (count := len((await request.form()).getlist("file"))) > 1:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"file: one image at a time, not {count}")
    return file


Upload = Annotated[UploadFile, Depends(_one_file)]
KQuery = Annotated[int, Query(ge=1, le=MAX_K, description="How many results.")]


def create_app(settings: Settings) -> FastAPI:
    """The application; set ``app.state.api.backend`` before the first query."""
    app: FastAPI = FastAPIOffline(
        title="bento-clip",
        version=__version__,
        summary="Text to images, image to captions, image to images.",
        openapi_url="/docs.json",
        docs_url="/docs",
        redoc_url="/redoc",
    )
    state = State(
        settings=settings,
        recorder=Recorder(),
        cache=TTLCache(settings.cache_size, settings.cache_ttl_s),
        vectors=LRUCache(settings.cache_size),
        decoders=ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode"),
        limits=Limits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels),
    )
    app.state.api = state
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ImageRejected, _rejected)
    app.add_exception_handler(InvalidQuery, _rejected)
    _add_info_routes(app, state)
    _add_query_routes(app, state)
    add_search_routes(app, state)
    return app


def _add_info_routes(app: FastAPI, state: State) -> None:
    page = add_page_routes(app, lambda: state.ready)

    @app.head("/", include_in_schema=False)
    @app.get("/", response_model=ServiceInfo, summary="What is served here; to a browser, the search page")
    async def info(request: Request, response: Response) -> Any:
        if prefers_page(request.headers.get("accept", "")):
            return page.response(request.headers.get("if-none-match", ""))
        response.headers["Vary"] = "Accept"
        backend = state.ready
        manifest = backend.retriever.artifact.manifest
        notes = []
        if manifest.data.captions == 0:
            notes.append("This collection has no captions, so POST /search/text finds nothing; image search is on.")
        return ServiceInfo(
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

    @app.get("/health", response_model=Health, summary="Whether queries can be answered")
    async def health() -> Health:
        ready = state.backend is not None
        return Health(
            status="healthy" if ready else "starting",
            timestamp=datetime.now(UTC),
            model_loaded=ready,
            indexes_loaded=ready,
            uptime_seconds=state.recorder.uptime_s,
            artifact=state.backend.artifact if state.backend else None,
        )

    @app.get("/stats", response_model=Stats, summary="Counts and latencies since the start, of this process")
    async def stats() -> Stats:
        return state.recorder.snapshot(len(state.cache))

    @app.post("/cache/clear", response_model=CacheCleared, summary="Empty the result cache")
    async def clear() -> CacheCleared:
        previous = len(state.cache)
        state.cache.clear()
        state.vectors.clear()
        return CacheCleared(
            message=f"{previous} cached results dropped", previous_cache_size=previous, current_cache_size=0
        )


def _add_query_routes(app: FastAPI, state: State) -> None:
    @app.post("/search/images", response_model=ImagesAnswer, responses={**ERRORS}, summary="Text to images")
    async def search_images(body: SearchImagesRequest) -> Response:
        request = Exchange(state, "search_images", body.text)
        return request.images(await request.find_for_text("images", body.text, body.k))

    @app.post("/search/text", response_model=CaptionsAnswer, responses={**ERRORS}, summary="Image to captions")
    async def search_text(file: Upload, k: KQuery = DEFAULT_K) -> Response:
        request = Exchange(state, "search_text", file.filename or "")
        return request.captions(await request.find_for_image("captions", await file.read(), k))

    @app.post("/search/similar", response_model=ImagesAnswer, responses={**ERRORS}, summary="Image to images")
    async def search_similar(file: Upload, k: KQuery = DEFAULT_K) -> Response:
        request = Exchange(state, "search_similar", file.filename or "")
        return request.images(await request.find_for_image("images", await file.read(), k))

    @app.post("/encode/text", response_model=TextEmbedding, responses={**ERRORS}, summary="Text to its vector")
    async def encode_text(body: EncodeTextRequest) -> Response:
        request = Exchange(state, "encode_text", body.text)
        tokens = request.tokenize(body.text)
        answer = await state.ready.answer_text(EngineQuery(tokens))
        vector = answer.vector.tolist()
        return request.respond(
            TextEmbedding(embedding=vector, dimension=len(vector), text=body.text, truncated=tokens.is_cut),
            stages_of(answer, searched=False),
            answer.batch_size,
        )

    @app.post(
        "/encode/image",
        response_model=ImageEmbedding,
        responses={**ERRORS},
        summary="Image to its vector",
    )
    async def encode_image(file: Upload) -> Response:
        request = Exchange(state, "encode_image", file.filename or "")
        pixels, decoding = await request.decode(await file.read())
        answer = await state.ready.answer_image(EngineQuery(pixels))
        vector = answer.vector.tolist()
        return request.respond(
            ImageEmbedding(embedding=vector, dimension=len(vector), filename=request.name),
            {"decode": decoding, **stages_of(answer, searched=False)},
            answer.batch_size,
        )


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
