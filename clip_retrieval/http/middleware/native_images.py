"""Decodes the images of BentoML's own ``/encode_images`` before BentoML validates them in the event loop."""

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
from clip_retrieval.serving.native_inputs import MAX_NATIVE_BATCH, decoded_beforehand
from clip_retrieval.serving.state import ServerState

PATH = "/encode_images"


class NativeImages:
    """Puts a mark in place of each image, for BentoML to pass on; it refuses itself what is no list of texts."""

    def __init__(self, app: ASGIApp, *, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        body = await read_whole(receive)
        if body is None:
            return
        found = await read_by_size(len(body), partial(_images, body))
        if found is None:
            await self._app(scope, give_again(body, receive), send)
            return
        request, images = found
        marked = json.dumps({**request, "images": ["decoded"] * len(images)}).encode()
        try:
            await charge(scope, cost.IMAGE * len(images))
            async with decoded_beforehand(images, self._state):
                await self._app(scope, give_again(marked, receive), send)
        except ClipRetrievalError as error:
            await error_response(status_of(error), str(error))(scope, receive, send)


def _images(body: bytes) -> tuple[dict[str, object], list[str]] | None:
    """The request and its images, if it has the form that BentoML's API takes."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    images = request.get("images")
    if not isinstance(images, list) or not 0 < len(images) <= MAX_NATIVE_BATCH:
        return None
    return (request, images) if all(isinstance(image, str) for image in images) else None
