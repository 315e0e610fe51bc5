"""Refuses a JSON body with more in it than its route can use, before it is parsed."""

from functools import partial
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.contract.json_size import MAX_DEPTH, excess
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.policy import JSON
from clip_retrieval.http.request_context import RequestContext
from clip_retrieval.http.whole_body import give_again, read_whole
from clip_retrieval.serving.large_bodies import read_by_size


class JsonCheck:
    """Answers 422 for a body with more values than the row of its route says, and 400 for one that is nested deeply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        if context is None or context.policy.media_type != JSON:
            await self._app(scope, receive, send)
            return
        body = await read_whole(receive)
        if body is None:
            return
        most = context.policy.max_values
        found = await read_by_size(len(body), partial(excess, body, most))
        if found == "values":
            detail = f"the body has more than {most:,} values, which is the limit here; send them in several requests"
            await error_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail)(scope, receive, send)
        elif found == "depth":
            detail = f"the body has lists or objects more than {MAX_DEPTH} deep inside each other"
            await error_response(HTTPStatus.BAD_REQUEST, detail)(scope, receive, send)
        else:
            await self._app(scope, give_again(body, receive), send)
