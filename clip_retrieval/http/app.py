"""The HTTP API as one application: its routes, and the answers to what is wrong with a request.

Knows nothing of BentoML; ``service.py`` mounts it, and gives its state something to serve.
"""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartParser
from starlette.responses import Response

from clip_retrieval import __version__
from clip_retrieval.contract.base import describe
from clip_retrieval.contract.plain_words import NO_FILE_NAME
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http.artifact_routes import add_artifact_routes
from clip_retrieval.http.change_routes import add_change_routes
from clip_retrieval.http.click_routes import add_click_routes
from clip_retrieval.http.composed_routes import add_composed_routes
from clip_retrieval.http.described_operations import operation_id
from clip_retrieval.http.description import describe_api
from clip_retrieval.http.docs_pages import add_docs_pages
from clip_retrieval.http.embeddings_routes import add_embeddings_routes
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.info_routes import add_info_routes
from clip_retrieval.http.json_bounds import JsonRoute
from clip_retrieval.http.original_routes import add_original_routes
from clip_retrieval.http.page_routes import add_page_routes
from clip_retrieval.http.query_routes import add_query_routes
from clip_retrieval.http.statuses import STATUS, status_of
from clip_retrieval.serving.state import ServerState

MAX_SHOWN = 200
"""Characters of the names of a form's fields that an error shows."""


def create_app(state: ServerState) -> FastAPI:
    """The application. Until ``state`` has something to serve, it answers queries with 503."""
    # The body is in memory already, within its limit: no upload needs a file. Starlette has no other way to say so.
    MultiPartParser.spool_max_size = state.settings.max_body_bytes
    app: FastAPI = FastAPIOffline(
        title="bento-clip",
        version=__version__,
        summary="Text to images, image to captions, image to images.",
        openapi_url="/docs.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    app.router.route_class = JsonRoute
    app.add_exception_handler(RequestValidationError, _invalid)
    for error, _ in STATUS:
        app.add_exception_handler(error, _refused)
    # A router tries its routes in their order: searches come first.
    add_query_routes(app, state)
    add_composed_routes(app, state)
    add_page_routes(app, state)
    add_original_routes(app, state)
    add_info_routes(app, state)
    add_artifact_routes(app, state)
    add_embeddings_routes(app, state)
    add_click_routes(app, state)
    add_change_routes(app, state)
    add_docs_pages(app)
    describe_api(app, asks_for_keys=lambda: state.gate.asks_for_keys)
    return app


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, FormData) and isinstance(error.body.get("file"), str):
        return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, f"file: {NO_FILE_NAME}")
    if isinstance(error.body, FormData) and "file" not in error.body:
        fields = f"; it has {', '.join(sorted(error.body.keys()))[:MAX_SHOWN]}" if error.body else ""
        detail = f"file: the form has no such field{fields}; send the image in it, as curl -F file=@image.jpg does"
        return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "json_invalid":
            detail = f"the body is not JSON: {problem['ctx']['error']} at character {problem['loc'][-1]}"
            return error_response(HTTPStatus.BAD_REQUEST, detail)
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, describe(problems))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ClipRetrievalError)
    return error_response(status_of(error), str(error))
