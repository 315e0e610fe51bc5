"""The short routes: one text or one uploaded image, to images, to captions or to its vector."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, File, Request, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.access import cost
from clip_retrieval.contract.answers import (
    CaptionsAnswer,
    ImageEmbedding,
    ImagesAnswer,
    ShortAnswer,
    TextEmbedding,
)
from clip_retrieval.contract.queries import EncodeTextRequest, SearchImagesRequest
from clip_retrieval.errors import InvalidQuery, PartRejected
from clip_retrieval.http.exchange import ERRORS, SEARCH_ERRORS, Exchange, with_results
from clip_retrieval.http.image_form import check_fields
from clip_retrieval.http.min_sequence import SEQUENCE_PARAMETERS
from clip_retrieval.http.request_context import charge
from clip_retrieval.http.upload_options import FIELDS, Options
from clip_retrieval.search.query import FileImage, Query, QueryPart
from clip_retrieval.serving.state import ServerState

IMAGE = "The image: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."


async def _one_file(request: Request, file: Annotated[UploadFile, File(description=IMAGE)]) -> UploadFile:
    if (count := len((await request.form()).getlist("file"))) > 1:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"file: one image at a time, not {count}")
    return file


async def _file_alone(request: Request, file: Annotated[UploadFile, Depends(_one_file)]) -> UploadFile:
    await check_fields(request, {"file"})
    return file


async def _file_beside_options(request: Request, file: Annotated[UploadFile, Depends(_one_file)]) -> UploadFile:
    await check_fields(request, {"file"} | FIELDS)
    return file


UploadAlone = Annotated[UploadFile, Depends(_file_alone)]
Upload = Annotated[UploadFile, Depends(_file_beside_options)]


def add_query_routes(app: FastAPI, state: ServerState) -> None:
    @app.post(
        "/search/images",
        response_model=ImagesAnswer,
        responses={**SEARCH_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="Text to images",
    )
    async def search_images(body: SearchImagesRequest, request: Request) -> Response:
        exchange = Exchange(state, "search_images")
        await exchange.reach(request.scope)
        query = Query(
            (QueryPart(body.text, language=body.language),),
            "images",
            body.k,
            where=body.where,
            min_confidence=body.min_confidence,
            mode=body.mode,
        )
        return await _answer(exchange, query, "text", body.text, request)

    @app.post(
        "/search/text",
        response_model=CaptionsAnswer,
        responses={**SEARCH_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="Image to captions",
    )
    async def search_text(file: Upload, request: Request, options: Options) -> Response:
        exchange = Exchange(state, "search_text")
        await exchange.reach(request.scope)
        query = Query(
            (QueryPart(FileImage(await file.read())),),
            "captions",
            options.k,
            where=options.where,
            min_confidence=options.min_confidence,
        )
        return await _answer(exchange, query, "image", file.filename or "", request)

    @app.post(
        "/search/similar",
        response_model=ImagesAnswer,
        responses={**SEARCH_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="Image to images",
    )
    async def search_similar(file: Upload, request: Request, options: Options) -> Response:
        exchange = Exchange(state, "search_similar")
        await exchange.reach(request.scope)
        query = Query(
            (QueryPart(FileImage(await file.read())),),
            "images",
            options.k,
            where=options.where,
            min_confidence=options.min_confidence,
        )
        return await _answer(exchange, query, "image", file.filename or "", request)

    @app.post("/encode/text", response_model=TextEmbedding, responses={**ERRORS}, summary="Text to its vector")
    async def encode_text(body: EncodeTextRequest) -> Response:
        exchange = Exchange(state, "encode_text")
        encoded, truncated = await exchange.service.encode_text(body.text, body.language)
        vector = encoded.vector.tolist()
        answer = TextEmbedding(embedding=vector, dimension=len(vector), text=body.text, truncated=truncated)
        return exchange.respond(answer.model_dump_json().encode(), {"encode": encoded.encode}, encoded.batch_size)

    @app.post("/encode/image", response_model=ImageEmbedding, responses={**ERRORS}, summary="Image to its vector")
    async def encode_image(file: UploadAlone) -> Response:
        exchange = Exchange(state, "encode_image")
        encoded, decode = await exchange.service.encode_image(FileImage(await file.read()))
        vector = encoded.vector.tolist()
        answer = ImageEmbedding(embedding=vector, dimension=len(vector), filename=file.filename or "")
        stages = {"decode": decode, "encode": encoded.encode}
        return exchange.respond(answer.model_dump_json().encode(), stages, encoded.batch_size)


async def _answer(
    exchange: Exchange, query: Query, query_type: Literal["text", "image"], name: str, request: Request
) -> Response:
    """The answer to a query of one part; ``name`` is its text or the name of its file."""
    texts, images = len(query.texts), len(query.images)
    await charge(request.scope, cost.of_search(texts=texts, images=images, is_filtered=bool(query.where)))
    [answer] = await exchange.service.answer([query], collection=exchange.collection)
    if isinstance(answer, PartRejected):
        raise answer.reason  # there is one part, so its place says nothing
    if isinstance(answer, InvalidQuery):
        raise answer
    head = ShortAnswer(
        query=name,
        query_type=query_type,
        total_results=answer.page.total,
        query_time_ms=exchange.so_far_ms,
        cached=answer.cached,
        truncated=answer.page.truncated,
        below_confidence=answer.page.below,
        search_id=exchange.log(query, answer),
    )
    return exchange.respond_answer(with_results(head, answer.page.results), answer)
