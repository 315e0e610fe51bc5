"""The artifact that is served: which one it is, and another one in its place."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response

from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.status import ArtifactStatus, SwapRequest
from clip_retrieval.errors import Busy, ClipRetrievalError
from clip_retrieval.http.audit import Auditor
from clip_retrieval.http.exchange import ERRORS
from clip_retrieval.serving.state import ServerState
from clip_retrieval.serving.swap import Swapper

WAIT_S = 20
"""After so many seconds a swap that goes on is answered with 202; ``GET /artifact`` then says how it ends."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    202: {"model": ArtifactStatus, "description": "It takes longer; GET /artifact says how it stands."},
    404: {"model": ErrorBody, "description": "There is no such artifact."},
    409: {"model": ErrorBody, "description": "It does not take over; the earlier artifact goes on. Says why."},
    **{status: ERRORS[status] for status in (400, 413, 415, 422, 503)},
}


def add_artifact_routes(app: FastAPI, state: ServerState) -> None:
    swaps: set[asyncio.Task[ArtifactStatus]] = set()

    def swapper() -> Swapper:
        if state.swapper is None:
            raise Busy("the service is starting; try again in a moment")
        return state.swapper

    @app.get("/artifact", response_model=ArtifactStatus, summary="Which artifact is served, and the latest swap")
    async def status() -> ArtifactStatus:
        return swapper().status

    @app.post("/artifact", response_model=ArtifactStatus, responses=REFUSALS, summary="Serve another artifact")
    async def swap(body: SwapRequest, request: Request, response: Response) -> ArtifactStatus:
        swapping = swapper().swap(body.artifact, force=body.force)
        return await answered(_audited(swapping, Auditor.of(request.scope), "swap", body.artifact), response)

    @app.post(
        "/compact", response_model=ArtifactStatus, responses=REFUSALS, summary="Make an artifact with the changes"
    )
    async def compact(request: Request, response: Response) -> ArtifactStatus:
        swapper()
        state.require_changes()
        return await answered(_audited(state.compact(), Auditor.of(request.scope), "compact"), response)

    async def answered(swapping: Coroutine[Any, Any, ArtifactStatus], response: Response) -> ArtifactStatus:
        task = asyncio.create_task(swapping)
        swaps.add(task)  # it goes on if the client leaves
        task.add_done_callback(swaps.discard)
        done, _ = await asyncio.wait({task}, timeout=WAIT_S)
        if done:
            return task.result()
        task.add_done_callback(_ended)
        response.status_code = HTTPStatus.ACCEPTED
        return swapper().status


async def _audited(
    swapping: Coroutine[Any, Any, ArtifactStatus], auditor: Auditor, what: str, wanted: str | None = None
) -> ArtifactStatus:
    """``swapping``, with a line in the record of changes that says how it ended."""
    named = {} if wanted is None else {"wanted": wanted}
    try:
        status = await swapping
    except ClipRetrievalError as error:
        auditor.note(what, **named, refused=str(error))
        raise
    auditor.note(what, **named, artifact=status.artifact)
    return status


def _ended(task: asyncio.Task[ArtifactStatus]) -> None:
    """Take the error of a swap that nobody waits for; ``GET /artifact`` shows it."""
    if not task.cancelled():
        task.exception()
