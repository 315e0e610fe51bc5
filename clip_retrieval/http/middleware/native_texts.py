"""Has a request to BentoML's own ``/encode_texts`` pay for all of its texts before BentoML validates them.

BentoML's validation cannot wait for an answer of a store in which several services count.
"""

import json
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.access import cost
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.request_context import charge
from clip_retrieval.http.statuses import status_of
from clip_retrieval.http.whole_body import give_again, read_whole
from clip_retrieval.serving.large_bodies import read_by_size
from clip_retrieval.serving.native_inputs import MAX_NATIVE_BATCH

PATH = "/encode_texts"


class NativeTexts:
    """Counts the texts; what is no list of as many as BentoML's API takes is left to it to refuse."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        body = await read_whole(receive)
        if body is None:
            return
        count = await read_by_size(len(body), partial(_count, body))
        if count <= MAX_NATIVE_BATCH:
            try:
                await charge(scope, cost.TEXT * count)
            except ClipRetrievalError as error:
                await error_response(status_of(error), str(error))(scope, receive, send)
                return
        await self._app(scope, give_again(body, receive), send)


def _count(body: bytes) -> int:
    """How many texts a request has; 0 if it is not of the form that BentoML's API takes."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return 0
    texts = request.get("texts") if isinstance(request, dict) else None
    return len(texts) if isinstance(texts, list) else 0
