"""Composed queries: several texts and images with weights, filters and pages; and several such queries at once."""

from contextlib import nullcontext
from http import HTTPStatus

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.responses import Response

from clip_retrieval.contract.answers import SearchAnswer, SearchAnswerHead, SearchBatchAnswer
from clip_retrieval.contract.base import ErrorBody, describe
from clip_retrieval.contract.queries import SearchBatchRequest, SearchRequest
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.http.exchange import ERRORS, Exchange, stages_together, with_results
from clip_retrieval.search.query import Query
from clip_retrieval.serving.query_service import QueryAnswer
from clip_retrieval.serving.state import ServerState

REFUSED = HTTPStatus.UNPROCESSABLE_ENTITY


def add_composed_routes(app: FastAPI, state: ServerState) -> None:
    @app.post("/search", response_model=SearchAnswer, responses={**ERRORS}, summary="Any mix to images or captions")
    async def search(body: SearchRequest) -> Response:
        exchange = Exchange(state, "search")
        query = Query.of(body)
        [answer] = await _answers(exchange, state, [query])
        if isinstance(answer, InvalidQuery):
            raise answer
        return exchange.respond_answer(_body(exchange, query, answer), answer)

    @app.post(
        "/search/batch", response_model=SearchBatchAnswer, responses={**ERRORS}, summary="Up to 64 searches at once"
    )
    async def search_batch(body: SearchBatchRequest) -> Response:
        exchange = Exchange(state, "search_batch")
        queries = [_checked(search) for search in body.searches]
        sound = [query for query in queries if isinstance(query, Query)]
        answers = iter(await _answers(exchange, state, sound))
        items: list[bytes] = []
        stages = []
        for query in queries:
            answer = next(answers) if isinstance(query, Query) else query
            if isinstance(query, Query) and isinstance(answer, QueryAnswer):
                stages.append(answer.stages)
                items.append(b'{"status":200,"answer":%b,"error":null}' % _body(exchange, query, answer))
            else:
                error = ErrorBody(error=REFUSED.phrase, detail=str(answer)).model_dump_json().encode()
                items.append(b'{"status":%d,"answer":null,"error":%b}' % (REFUSED, error))
        return exchange.respond(b'{"answers":[%b]}' % b",".join(items), stages_together(stages))


async def _answers(exchange: Exchange, state: ServerState, queries: list[Query]) -> list[QueryAnswer | InvalidQuery]:
    """The answer to each query. Only the body says whether a request brings images, so it takes their place here."""
    brings_images = any(query.images for query in queries)
    with state.traffic.image_place() if brings_images else nullcontext():
        return await exchange.service.answer(queries)


def _body(exchange: Exchange, query: Query, answer: QueryAnswer) -> bytes:
    head = SearchAnswerHead(
        target=query.target,
        total_results=answer.page.total,
        offset=query.offset,
        next_offset=answer.page.next_offset,
        query_time_ms=exchange.so_far_ms,
        cached=answer.cached,
        truncated=answer.page.truncated,
    )
    return with_results(head, answer.page.results)


def _checked(given: object) -> Query | InvalidQuery:
    try:
        return Query.of(SearchRequest.model_validate(given))
    except ValidationError as error:
        return InvalidQuery(describe(error.errors()))
