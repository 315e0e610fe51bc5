"""What is served, whether it answers, what it has answered; and what the collection holds."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Request
from fastapi import Query as QueryParameter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval import __version__
from clip_retrieval.access import cost
from clip_retrieval.access.caller import includes
from clip_retrieval.access.gate import READ_ONLY
from clip_retrieval.artifacts.confidence import confident_ways
from clip_retrieval.contract.base import DEFAULT_LISTED, LONGEST_ID, MAX_LISTED, ErrorBody, IdText
from clip_retrieval.contract.collection import FieldsAnswer, ImageInfo, ImagesPage
from clip_retrieval.contract.conditions import read_conditions
from clip_retrieval.contract.status import CacheCleared, Health, ServiceInfo, Stats
from clip_retrieval.http.accept import prefers_page
from clip_retrieval.http.any_text import IMAGE_ID
from clip_retrieval.http.audit import Auditor
from clip_retrieval.http.exchange import ERRORS
from clip_retrieval.http.min_sequence import SEQUENCE_PARAMETERS, WAIT_ERRORS, after_change
from clip_retrieval.http.original_routes import original_template
from clip_retrieval.http.page import Page
from clip_retrieval.http.page_routes import thumbnail_template
from clip_retrieval.http.request_context import RequestContext, charge, whole_list
from clip_retrieval.live.etag import etag_of
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.records import MODES
from clip_retrieval.search.results import image_info
from clip_retrieval.serving.state import ServerState

NO_IMAGE: Mapping[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "There is no image of that id."},
    422: ERRORS[422],
}


_NOT_FOR_ALL = ("artifact", "version", "index", "encoder", "changes")
"""What ``/health`` says only to who may search."""

After = Annotated[
    IdText, QueryParameter(description="The `next` of the page before: ids behind this one follow. " + LONGEST_ID)
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LISTED, description="Images of one page.")]


Beside = Annotated[
    str | None,
    QueryParameter(
        description="Conditions, as a text or the JSON of a `where`: each field is counted over the images that meet "
        "those which name other fields. Without it, over the whole collection."
    ),
]


async def _pay_for_counting(request: Request, where: Beside = None) -> None:
    if where is not None:
        await charge(request.scope, cost.FILTER)


async def _pay_for_listing(request: Request, limit: Limit = DEFAULT_LISTED) -> None:
    await charge(request.scope, cost.of_listing(limit))


def add_info_routes(app: FastAPI, state: ServerState) -> None:
    page = Page.search_page()

    @app.get(
        "/",
        response_model=ServiceInfo,
        responses={**WAIT_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="What is served here; to a browser, the search page",
        dependencies=[after_change(state)],
    )
    async def info(request: Request, response: Response) -> Any:
        root = request.scope.get("root_path", "")
        if prefers_page(whole_list(request.scope, b"accept")):
            return page.below(root).response(whole_list(request.scope, b"if-none-match"))
        response.headers["Vary"] = "Accept"
        service = state.require_service()
        collection = service.retriever.collection
        captions = collection.count("captions")
        notes = []
        if captions == 0:
            notes.append("This collection has no captions, so POST /search/text finds nothing; image search is on.")
        return ServiceInfo(
            name="bento-clip",
            version=__version__,
            model=collection.manifest.encoder.name,
            images=collection.count("images"),
            captions=captions,
            artifact=service.artifact,
            links={
                name: f"{root}{path}"
                for name, path in {
                    "docs": "/docs",
                    "redoc": "/redoc",
                    "openapi": "/docs.json",
                    "metrics": "/metrics",
                    **thumbnail_template(collection, changes=state.changes is not None),
                    **original_template(collection, state),
                }.items()
            },
            confident_ways=confident_ways(collection.curves),
            modes=["vector"] if collection.words is None else list(MODES),
            min_confidence=collection.curves.bound if collection.curves and confident_ways(collection.curves) else None,
            notes=notes,
        )

    @app.get("/health", response_model=Health, summary="Whether queries can be answered")
    async def health(request: Request) -> Health:
        is_ready = state.service is not None
        status: Literal["healthy", "failing", "starting"] = "healthy" if is_ready else "starting"
        if is_ready and state.trouble() is not None:
            status = "failing"
        context = RequestContext.of(request.scope)
        takes_changes = state.changes is not None and not state.gate.is_read_only
        if takes_changes and state.changes is not None:
            place = state.changes.place
        else:
            place = READ_ONLY if state.gate.is_read_only else state.frozen_because
        health = Health(
            status=status,
            timestamp=datetime.now(UTC),
            model_loaded=is_ready,
            indexes_loaded=is_ready,
            uptime_seconds=state.recorder.uptime_s,
            artifact=state.service.artifact if state.service else None,
            version=state.service.retriever.collection.version if state.service else None,
            sequence=state.service.retriever.collection.sequence if state.service else 0,
            index=state.index_trouble(),
            encoder=state.encoder_trouble(),
            takes_changes=takes_changes,
            may_change=takes_changes and (context is None or includes(context.caller.scope, "write")),
            changes=place,
        )
        if context is None or includes(context.caller.scope, "search"):
            return health
        return health.model_copy(update=dict.fromkeys(_NOT_FOR_ALL))

    @app.get("/stats", response_model=Stats, summary="Counts and latencies since the start, of all workers")
    async def stats() -> Stats:
        state.publish()
        collection = None if state.service is None else state.service.retriever.collection
        if not isinstance(collection, LiveCollection):
            return state.recorder.snapshot()
        changed = {"images_added": collection.added, "images_removed": collection.removed}
        return state.recorder.snapshot().model_copy(update=changed)

    @app.post("/cache/clear", response_model=CacheCleared, summary="Empty the result caches of all workers")
    async def clear(request: Request) -> CacheCleared:
        previous, reached = await state.service.clear_for_all() if state.service else (0, True)
        Auditor.of(request.scope).note("clear cache", dropped=previous)
        message = f"{previous} cached results dropped"
        if not reached:
            message += (
                "; the store that services share does not answer: this service leaves it alone until it could clear "
                "it, other services may still answer from it"
            )
        return CacheCleared(message=message, previous_cache_size=previous, current_cache_size=0)

    # Plain functions: FastAPI runs them in threads, so the event loop waits for no disk and for no count.
    @app.get(
        "/fields",
        response_model=FieldsAnswer,
        responses={**WAIT_ERRORS, 422: ERRORS[422]},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="What where can filter by, and how many images each value has",
        dependencies=[Depends(_pay_for_counting), after_change(state)],
    )
    def fields(where: Beside = None) -> FieldsAnswer:
        collection = state.require_service().retriever.collection
        if where is None:
            return FieldsAnswer(fields=collection.fields)
        return FieldsAnswer(fields=collection.fields_beside(read_conditions(where)))

    @app.get(
        "/images",
        response_model=ImagesPage,
        responses={**WAIT_ERRORS, 422: ERRORS[422]},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="All images, page by page",
        dependencies=[Depends(_pay_for_listing), after_change(state)],
    )
    def images(after: After = "", limit: Limit = DEFAULT_LISTED) -> ImagesPage:
        collection = state.live_collection()
        ids = collection.page_of_ids(after or None, limit + 1)
        return ImagesPage(
            images=[_image_info(collection, image_id) for image_id in ids[:limit]],
            next=ids[limit - 1] if len(ids) > limit else None,
        )

    @app.get(
        f"/images/{IMAGE_ID}",
        response_model=ImageInfo,
        responses={**NO_IMAGE, **WAIT_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="One image",
        dependencies=[after_change(state)],
    )
    def image(
        image_id: Annotated[str, Path(description="Percent-encoded where it has to be.")], response: Response
    ) -> ImageInfo:
        collection = state.live_collection()
        if collection.find_row(image_id) is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no image {image_id} in this collection")
        found = _image_info(collection, image_id)
        response.headers["ETag"] = f'"{found.etag}"'
        return found


def _image_info(collection: LiveCollection, image_id: str) -> ImageInfo:
    found = collection.image(image_id)
    assert found is not None, "one state has the image that it lists"
    return image_info(*found, etag_of(*found))
