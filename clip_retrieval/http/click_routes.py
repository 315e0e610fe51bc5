"""What was opened among the results of a search, for the query log."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.clicks import ClickLogged, ClickRequest
from clip_retrieval.http.exchange import ERRORS
from clip_retrieval.serving.state import ServerState

CLICK_ERRORS: Mapping[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "There is no image of that id."},
    409: {"model": ErrorBody, "description": "The service logs no searches."},
    **{status: ERRORS[status] for status in (400, 413, 415, 422, 503)},
}


def add_click_routes(app: FastAPI, state: ServerState) -> None:
    @app.post(
        "/clicks", response_model=ClickLogged, responses={**CLICK_ERRORS}, summary="An image of a search was opened"
    )
    async def click(body: ClickRequest) -> ClickLogged:
        collection = state.require_service().retriever.collection
        state.query_log.require()
        if collection.find_row(body.image_id) is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no image {body.image_id} in this collection")
        state.query_log.click(body.search_id, body.image_id, collection)
        return ClickLogged(message="logged")
