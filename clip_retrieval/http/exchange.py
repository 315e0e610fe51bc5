"""One request of the HTTP API: its clock, and its answer with what it took.

Knows no route. A handler makes an ``Exchange`` first, so that the clock starts when the request has been parsed.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Scope

from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.http.min_sequence import WAIT_ERRORS, min_sequence
from clip_retrieval.search.query import Query
from clip_retrieval.serving.change_work import Reply
from clip_retrieval.serving.query_service import QueryAnswer
from clip_retrieval.serving.shared_state import Kind
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.tracing import record_stages
from clip_retrieval.stages import STAGES, Stage

ERRORS: Mapping[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is malformed.",
        413: "The body is over the limit of bytes.",
        415: "The upload is not an image.",
        422: "A value is out of range, or the image does not decode or is too large to decode.",
        429: "The caller's limit is reached, or the caller has too many requests in progress; see Retry-After.",
        503: "More requests than can be served; Retry-After says when to come back.",
    }.items()
}
"""For the description of the API."""

SEARCH_ERRORS: Mapping[int | str, dict[str, Any]] = {
    **WAIT_ERRORS,
    **ERRORS,
}

CHANGE_ERRORS: Mapping[int | str, dict[str, Any]] = {
    **ERRORS,
    **{
        status: {"model": ErrorBody, "description": text}
        for status, text in {
            404: "There is no image of that id.",
            409: "The service takes no changes, or another image has that id.",
            412: "The image is no longer as If-Match says, or is there although If-None-Match says that it is not.",
            429: "The caller's limit is reached, or as many images were added as may be before they are compacted.",
            507: "The disk is full; nothing was changed.",
        }.items()
    },
}


class Exchange:
    """One request, its clock and the state of the collection that it is answered from."""

    def __init__(self, state: ServerState, kind: Kind) -> None:
        """Raises Busy while nothing is served."""
        self._state = state
        self._kind = kind
        self._start = time.perf_counter()
        self._begin()

    def _begin(self) -> None:
        """Take what is served now, and its present state."""
        self.service = self._state.require_service()
        self.collection = self.service.retriever.collection
        """One state, from the beginning of the request to its end."""

    @property
    def so_far_ms(self) -> float:
        """Milliseconds since the request was parsed."""
        return (time.perf_counter() - self._start) * 1e3

    async def reach(self, scope: Scope) -> None:
        """Wait for the change that the request names, if it names one, and answer from a state that has it.

        Raises InvalidQuery, CollectionFrozen, NotYetVisible.
        """
        if await self._state.reach(min_sequence(scope)):
            self._begin()

    def log(self, query: Query, answer: QueryAnswer) -> str | None:
        """The id of the search in the query log; None if it is not logged."""
        return self._state.query_log.search(query, answer.vectors, self.collection)

    def respond(self, body: bytes, stages: Mapping[str, Stage], batch_size: int | None = None) -> Response:
        """The answer, with its stages traced, counted and in ``Server-Timing`` (W3C Server Timing, milliseconds).

        ``batch_size`` is the number of queries that were encoded together, where it was one batch.
        ``Collection-Version`` and ``Collection-Sequence`` name the state that it was answered from.
        """
        state = self._state
        record_stages(state.tracer, stages, {"encode": {"bento_clip.batch_size": batch_size}} if batch_size else {})
        times = {name: stage.seconds for name, stage in stages.items()}
        times["total"] = time.perf_counter() - self._start
        state.recorder.add(self._kind, times)
        for stage, seconds in times.items():
            state.observe(stage, seconds)
        timing = ", ".join(f"{stage};dur={times.get(stage, 0) * 1e3:.3f}" for stage in STAGES)
        headers = {
            "Server-Timing": timing,
            "Collection-Version": self.collection.version,
            "Collection-Sequence": str(self.collection.sequence),
        }
        return Response(body, media_type="application/json", headers=headers)

    def respond_answer(self, body: bytes, answer: QueryAnswer) -> Response:
        """The answer to one query, which also says whether it came from the cache."""
        response = self.respond(body, answer.stages, answer.batch_size)
        if answer.cached:
            response.headers["Server-Timing"] += ", cache;desc=hit"
        return response

    def respond_change(self, reply: Reply, stages: Mapping[str, Stage]) -> Response:
        """The reply to a request for changes, from the state that has them."""
        self._begin()  # another artifact may have taken over meanwhile, and only its state has the changes
        response = self.respond(reply.body.encode(), stages)
        response.status_code = reply.status
        response.headers.update(reply.headers)
        if reply.was_kept:
            response.headers["Idempotent-Replayed"] = "true"
        return response


def with_results(head: BaseModel, results: bytes) -> bytes:
    """The JSON of an answer: everything but its results, and these as they were rendered."""
    return b'%b,"results":%b}' % (head.model_dump_json().encode()[:-1], results)


def stages_together(each: Iterable[Mapping[str, Stage]]) -> dict[str, Stage]:
    """The stages of several queries: search times add up; decoding and encoding overlap, so the longest counts."""
    stages: dict[str, Stage] = {}
    for single in each:
        for name, (start, seconds) in single.items():
            first, known = stages.get(name, Stage(start, 0.0))
            stages[name] = Stage(min(first, start), known + seconds if name == "search" else max(known, seconds))
    return stages
