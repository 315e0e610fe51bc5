"""Composed queries: several texts and images with weights, filters and pages; and several such queries at once."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.responses import Response

from clip_retrieval.access import cost
from clip_retrieval.contract.answers import BrowseAnswer, SearchAnswer, SearchAnswerHead, SearchBatchAnswer
from clip_retrieval.contract.base import ErrorBody, describe
from clip_retrieval.contract.json_size import values_in
from clip_retrieval.contract.queries import SearchBatchRequest, SearchRequest
from clip_retrieval.errors import ClipRetrievalError, InvalidQuery, StateGone
from clip_retrieval.http.error_response import error_body
from clip_retrieval.http.exchange import SEARCH_ERRORS, Exchange, stages_together, with_results
from clip_retrieval.http.min_sequence import SEQUENCE_PARAMETERS
from clip_retrieval.http.policy import VALUES_OF_SEARCH
from clip_retrieval.http.request_context import caller_name, charge
from clip_retrieval.http.statuses import status_of
from clip_retrieval.search.query import Query
from clip_retrieval.search.ranking import FRONT_ROWS
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.query_service import QueryAnswer
from clip_retrieval.serving.state import ServerState

GONE: Mapping[int | str, dict[str, Any]] = {
    410: {"model": ErrorBody, "description": "The named state of the collection is kept no more."}
}


def add_composed_routes(app: FastAPI, state: ServerState) -> None:
    @app.post(
        "/search",
        response_model=SearchAnswer | BrowseAnswer,
        responses={**SEARCH_ERRORS, **GONE},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="Any mix to images or captions",
    )
    async def search(body: SearchRequest, request: Request) -> Response:
        exchange = Exchange(state, "search")
        await exchange.reach(request.scope)
        asked = await _asked(body, state, exchange.collection)
        exchange.collection = asked.collection
        await charge(request.scope, _cost(asked))
        [answer] = await _answers(exchange, state, [asked], caller_name(request.scope))
        if isinstance(answer, InvalidQuery):
            raise answer
        return exchange.respond_answer(_body(exchange, asked, answer), answer)

    @app.post(
        "/search/batch",
        response_model=SearchBatchAnswer,
        responses={**SEARCH_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="Up to 64 searches at once",
    )
    async def search_batch(body: SearchBatchRequest, request: Request) -> Response:
        exchange = Exchange(state, "search_batch")
        await exchange.reach(request.scope)
        each = await asyncio.gather(*(_checked(search, state, exchange.collection) for search in body.searches))
        right = [one for one in each if isinstance(one, _Asked)]
        await charge(request.scope, cost.READ * len(each) + sum(map(_cost, right)))
        answers = iter(await _answers(exchange, state, right, caller_name(request.scope)))
        items: list[bytes] = []
        stages = []
        for one in each:
            answer = next(answers) if isinstance(one, _Asked) else one
            if isinstance(one, _Asked) and isinstance(answer, QueryAnswer):
                stages.append(answer.stages)
                items.append(b'{"status":200,"answer":%b,"error":null}' % _body(exchange, one, answer))
            else:
                assert isinstance(answer, ClipRetrievalError)
                status = status_of(answer)
                error = error_body(status, str(answer)).model_dump_json().encode()
                items.append(b'{"status":%d,"answer":null,"error":%b}' % (status, error))
        return exchange.respond(b'{"answers":[%b]}' % b",".join(items), stages_together(stages))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query, and the state of the collection that it asks."""

    query: Query
    collection: SearchableCollection


def _cost(asked: _Asked) -> int:
    """What a search costs, in the units of ``access/cost.py``."""
    query = asked.query
    is_deep = query.offset + query.k > FRONT_ROWS
    return cost.of_search(
        texts=len(query.texts),
        images=len(query.images),
        deep_rows=asked.collection.count(query.target) if is_deep else 0,
        is_filtered=bool(query.where),
        is_folded=query.dedupe,
    )


async def _answers(
    exchange: Exchange, state: ServerState, asked: Sequence[_Asked], caller: str
) -> list[QueryAnswer | InvalidQuery]:
    """The answer to each query. Only the body says what a request brings, so it takes the places for that here."""
    together: dict[SearchableCollection, list[int]] = {}
    for place, one in enumerate(asked):
        together.setdefault(one.collection, []).append(place)
    answers: dict[int, QueryAnswer | InvalidQuery] = {}
    texts = {text for one in asked for text in one.query.texts}
    images = sum(len(one.query.images) for one in asked)
    with state.traffic.places(texts=len(texts), images=images, caller=caller):
        for collection, places in together.items():
            found = await exchange.service.answer([asked[place].query for place in places], collection=collection)
            answers.update(zip(places, found, strict=True))
            if any(isinstance(answer, QueryAnswer) and answer.page.next_offset is not None for answer in found):
                state.keep_state(collection)
    return [answers[place] for place in range(len(asked))]


def _body(exchange: Exchange, asked: _Asked, answer: QueryAnswer) -> bytes:
    head = SearchAnswerHead(
        target=asked.query.target,
        total_results=answer.page.total,
        offset=asked.query.offset,
        next_offset=answer.page.next_offset,
        query_time_ms=exchange.so_far_ms,
        cached=answer.cached,
        truncated=answer.page.truncated,
        below_confidence=answer.page.below,
        state=asked.collection.version,
        search_id=exchange.log(asked.query, answer),
    )
    return with_results(head, answer.page.results)


async def _asked(request: SearchRequest, state: ServerState, present: SearchableCollection) -> _Asked:
    """Raises StateGone."""
    named = request.state
    return _Asked(Query.of(request), present if named is None else await state.state_named(named, present))


async def _checked(given: object, state: ServerState, present: SearchableCollection) -> _Asked | ClipRetrievalError:
    if values_in(given, VALUES_OF_SEARCH) > VALUES_OF_SEARCH:
        return InvalidQuery(f"the search has more than {VALUES_OF_SEARCH:,} values, which is the limit")
    try:
        return await _asked(SearchRequest.model_validate(given), state, present)
    except ValidationError as error:
        return InvalidQuery(describe(error.errors()))
    except UnicodeEncodeError:  # of pydantic, which cannot show a problem with a lone surrogate
        return InvalidQuery("a text has half a character (a lone surrogate)")
    except StateGone as error:
        return error
