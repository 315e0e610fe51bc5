"""The routes of composed queries: search, batches of searches, the fields to filter by, one image's record.

The parts of a query join the encoder's batches like any other text or image; what they add up to is searched in the
search thread. Every image of a request is decoded in a decoder thread, and all of them together are bounded by the
limits for one: bytes by the body, pixels here.
"""

import asyncio
import hashlib
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.contract.answers import BatchItem, SearchAnswer, SearchBatchAnswer
from clip_retrieval.contract.base import ErrorBody, describe
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo
from clip_retrieval.contract.queries import Part, SearchBatchRequest, SearchRequest
from clip_retrieval.encoders.base import Pixels, Tokens, Vectors
from clip_retrieval.errors import ImageRejected, InvalidQuery
from clip_retrieval.http.exchange import ERRORS, Exchange, Outcome, State
from clip_retrieval.images.decode import decode_part
from clip_retrieval.search.compose import compose
from clip_retrieval.search.filters import canonical
from clip_retrieval.search.hits import Found
from clip_retrieval.search.results import image_info, results
from clip_retrieval.serving.engine import Query as EngineQuery
from clip_retrieval.serving.tracing import Stage

REFUSED = HTTPStatus.UNPROCESSABLE_ENTITY
NO_IMAGE: Mapping[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "There is no image of that id."},
    422: ERRORS[422],
}


def add_search_routes(app: FastAPI, state: State) -> None:
    @app.post("/search", response_model=SearchAnswer, responses={**ERRORS}, summary="Any mix to images or captions")
    async def search(body: SearchRequest) -> Response:
        exchange = Exchange(state, "search", "")
        [outcome] = await _search(exchange, state, [body])
        if isinstance(outcome, InvalidQuery):
            raise outcome
        return exchange.respond_found(_answer(exchange, body, outcome), outcome)

    @app.post(
        "/search/batch", response_model=SearchBatchAnswer, responses={**ERRORS}, summary="Up to 64 searches at once"
    )
    async def search_batch(body: SearchBatchRequest) -> Response:
        exchange = Exchange(state, "search_batch", "")
        asked = [_checked(search) for search in body.searches]
        sound = [search for search in asked if isinstance(search, SearchRequest)]
        outcomes = iter(await _search(exchange, state, sound))
        answered: list[Outcome[Found]] = []
        items: list[BatchItem] = []
        for search in asked:
            outcome = next(outcomes) if isinstance(search, SearchRequest) else search
            if isinstance(search, SearchRequest) and isinstance(outcome, Outcome):
                answered.append(outcome)
                items.append(BatchItem(status=HTTPStatus.OK, answer=_answer(exchange, search, outcome)))
            else:
                error = ErrorBody(error=REFUSED.phrase, detail=str(outcome))
                items.append(BatchItem(status=REFUSED, error=error))
        return exchange.respond(SearchBatchAnswer(answers=items), _stages(outcome.stages for outcome in answered))

    @app.get("/fields", response_model=FieldsAnswer, summary="What where can filter by")
    async def fields() -> FieldsAnswer:
        return FieldsAnswer(fields=state.ready.retriever.fields())

    @app.get("/images/{image_id:path}", response_model=ImageInfo, responses={**NO_IMAGE}, summary="One image")
    async def image(image_id: Annotated[str, Path(description="Percent-encoded where it has to be.")]) -> ImageInfo:
        found = state.ready.retriever.image(image_id)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no image {image_id} in this collection")
        return image_info(*found)


async def _search(
    exchange: Exchange, state: State, requests: Sequence[SearchRequest]
) -> list[Outcome[Found] | InvalidQuery]:
    """The outcome of each request, in order; what is wrong with one is its own outcome."""
    keys = [_parts_key(request) for request in requests]
    kept = [exchange.cached(_key(parts, request)) for parts, request in zip(keys, requests, strict=True)]
    composed = [state.vectors.get(parts) for parts in keys]
    new = [
        part
        for request, outcome, known in zip(requests, kept, composed, strict=True)
        if outcome is None and known is None
        for part in request.queries
    ]
    images = dict.fromkeys(part.image for part in new if part.image is not None)
    pixels, decoding = await _decode(exchange, state, images) if images else ({}, None)
    tokens = await _tokenize(exchange, dict.fromkeys(part.text for part in new if part.text is not None))

    async def one(
        request: SearchRequest, parts: Hashable, outcome: Outcome[Found] | None, known: tuple[Vectors, bool] | None
    ) -> Outcome[Found] | InvalidQuery:
        if outcome is not None:
            return outcome
        stages: dict[str, Stage] = {"decode": decoding} if decoding and any(p.image for p in request.queries) else {}
        try:
            exchange.backend.retriever.filters.check(request.where or {})
            if known is None:
                vector, cut, stages["encode"] = await _compose(exchange, request, pixels, tokens)
                if state.settings.cache_size:  # who composed the same meanwhile goes first: pages share a vector
                    vector, cut = state.vectors.setdefault(parts, (vector, cut))
            else:
                vector, cut = known
            found = await exchange.backend.search(vector, request)
        except InvalidQuery as error:
            return error
        stages["search"] = Stage(found.search_start, found.search_s)
        return exchange.keep(_key(parts, request), Outcome(found, cut, stages))

    return await asyncio.gather(*map(one, requests, keys, kept, composed))


async def _tokenize(exchange: Exchange, texts: Iterable[str]) -> dict[str, Tokens]:
    """The tokens of each text. A batch of searches may have a thousand long ones, so others get their turn."""
    tokens = {}
    for text in texts:
        tokens[text] = exchange.tokenize(text)
        await asyncio.sleep(0)
    return tokens


async def _compose(
    exchange: Exchange,
    request: SearchRequest,
    pixels: Mapping[str, Pixels | ImageRejected],
    tokens: Mapping[str, Tokens],
) -> tuple[Vectors, bool, Stage]:
    """The query vector, whether the model read a text in part only, and the encoding of the slowest part."""
    backend = exchange.backend

    async def encode(number: int, part: Part) -> tuple[Vectors, Stage]:
        if part.image_id is not None:
            return backend.retriever.stored_vector(part.image_id), Stage(time.perf_counter(), 0.0)
        if part.text is not None:
            answer = await backend.answer_text(EngineQuery(tokens[part.text]))
        elif isinstance(decoded := pixels[part.image or ""], ImageRejected):
            raise InvalidQuery(f"queries.{number}.image: {decoded}")
        else:
            answer = await backend.answer_image(EngineQuery(decoded))
        return answer.vector, Stage(answer.encode_start, answer.encode_s)

    encoded = await asyncio.gather(*(encode(number, part) for number, part in enumerate(request.queries)))
    vector = compose(np.stack([vector for vector, _ in encoded]), [part.weight for part in request.queries])
    cut = any(tokens[part.text].is_cut for part in request.queries if part.text is not None)
    return vector, cut, max((stage for _, stage in encoded), key=lambda stage: stage.seconds)


async def _decode(
    exchange: Exchange, state: State, images: Iterable[str]
) -> tuple[dict[str, Pixels | ImageRejected], Stage]:
    """Pixels of base64 images, or why there are none, and when a decoder thread was at it."""
    preprocess = exchange.backend.retriever.encoder.preprocess

    def work() -> tuple[dict[str, Pixels | ImageRejected], Stage]:
        start = time.perf_counter()
        pixels: dict[str, Pixels | ImageRejected] = {}
        left = state.limits.max_pixels
        for encoded in images:
            try:
                image = decode_part(encoded, replace(state.limits, max_pixels=left))
            except ImageRejected as error:
                pixels[encoded] = error
            else:
                left -= image.width * image.height
                pixels[encoded] = preprocess(image)
        return pixels, Stage(start, time.perf_counter() - start)

    return await asyncio.get_running_loop().run_in_executor(state.decoders, work)


def _answer(exchange: Exchange, request: SearchRequest, outcome: Outcome[Found]) -> SearchAnswer:
    found = results(outcome.answer)
    return SearchAnswer(
        target=request.target,
        results=found,
        total_results=len(found),
        offset=request.offset,
        next_offset=outcome.answer.next_offset,
        query_time_ms=exchange.so_far_ms,
        cached=outcome.cached,
        truncated=outcome.cut,
    )


def _checked(given: object) -> SearchRequest | InvalidQuery:
    try:
        return SearchRequest.model_validate(given)
    except ValidationError as error:
        return InvalidQuery(describe(error.errors()))


def _stages(each: Iterable[Mapping[str, Stage]]) -> dict[str, Stage]:
    """The stages of a batch: searches stand in one line, decoding and encoding are waited for together."""
    stages: dict[str, Stage] = {}
    for single in each:
        for name, (start, seconds) in single.items():
            first, known = stages.get(name, Stage(start, 0.0))
            stages[name] = Stage(min(first, start), known + seconds if name == "search" else max(known, seconds))
    return stages


def _parts_key(request: SearchRequest) -> Hashable:
    """What the query vector depends on."""
    return tuple(
        (part.text, part.image and hashlib.sha256(part.image.encode()).digest(), part.image_id, part.weight)
        for part in request.queries
    )


def _key(parts: Hashable, request: SearchRequest) -> Hashable:
    """What the answer depends on."""
    where = canonical(request.where) if request.where else ""
    return (parts, request.target, request.k, request.offset, request.min_score, request.dedupe, where)
