"""What the search page asks for: thumbnails, and images to start from."""

import hashlib
from http import HTTPStatus
from typing import Annotated, get_args
from urllib.parse import quote

from fastapi import FastAPI, Header, Path
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.artifacts.thumbnails import Size
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.collection import Example, Examples
from clip_retrieval.http.any_text import IMAGE_ID
from clip_retrieval.http.min_sequence import SEQUENCE_PARAMETERS, WAIT_ERRORS, after_change
from clip_retrieval.http.page import REVALIDATE, is_current
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.state import ServerState

EXAMPLES = 24
IMMUTABLE = "public, max-age=31536000, immutable"

SizeName = Annotated[str, Path(json_schema_extra={"enum": list(get_args(Size))})]
"""Another name is 404, as a path that is not there is."""
IfNoneMatch = Annotated[str, Header(include_in_schema=False)]


def thumbnail_template(collection: SearchableCollection, *, changes: bool = False) -> dict[str, str]:
    """The link to thumbnails with ``{size}`` and ``{image_id}`` to fill in; empty if the collection has none.

    In a collection that ``changes`` the link names no version: no thumbnail may be kept without asking again.
    """
    if not collection.has_thumbnails:
        return {}
    version = "" if changes else f"?v={quote(collection.version)}"
    return {"thumbnails": f"/thumbnails/{{size}}/{{image_id}}{version}"}


def _thumbnail_tag(collection: SearchableCollection, size: str, image_id: str) -> str:
    """Changes with the image. That of a frozen collection follows from the names alone, so that a 304 reads no file.

    Raises 404 for an image that a changing collection does not have.
    """
    if not isinstance(collection, LiveCollection):
        name = hashlib.sha256(f"{size}/{image_id}".encode()).hexdigest()[:16]
        return f'"{collection.version}-{name}"'
    etag = collection.etag(image_id)
    if etag is None:
        raise _no_image(image_id)
    return f'"{etag}-{size}"'


def _no_image(image_id: str) -> HTTPException:
    return HTTPException(HTTPStatus.NOT_FOUND, f"there is no image {image_id!r} in this collection")


def add_page_routes(app: FastAPI, state: ServerState) -> None:
    # Plain functions: FastAPI runs them in threads, so the event loop waits for no disk.
    @app.get(
        f"/thumbnails/{{size}}/{IMAGE_ID}",
        response_class=Response,
        responses={
            200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}},
            304: {"description": "The copy that the browser has is current."},
            404: {"model": ErrorBody, "description": "No such image or size, or no thumbnail of it."},
            **WAIT_ERRORS,
        },
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="An image as WebP, small or large",
        dependencies=[after_change(state)],
    )
    def thumbnail(size: SizeName, image_id: str, v: str = "", if_none_match: IfNoneMatch = "") -> Response:
        collection = state.require_service().retriever.collection
        tag = _thumbnail_tag(collection, size, image_id)
        is_immutable = state.changes is None and v == collection.version
        headers = {
            "Cache-Control": IMMUTABLE if is_immutable else REVALIDATE,
            "X-Content-Type-Options": "nosniff",
            "ETag": tag,
        }
        if is_current(if_none_match, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if size not in get_args(Size):
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no size {size!r}; the sizes are small and large")
        if not collection.has_thumbnails:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, "this artifact was built without thumbnails; build it with --thumbnails-mb 500"
            )
        webp = collection.thumbnail(image_id, "large" if size == "large" else "small")
        if webp is None and collection.find_row(image_id) is None:
            raise _no_image(image_id)
        if webp is None:
            raise HTTPException(
                HTTPStatus.NOT_FOUND,
                f"the image {image_id!r} has no thumbnail: it was added to an artifact without them; set it again",
            )
        if if_none_match.strip() == "*":
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(webp, media_type="image/webp", headers=headers)

    @app.get(
        "/examples",
        response_model=Examples,
        responses={**WAIT_ERRORS},
        openapi_extra=dict(SEQUENCE_PARAMETERS),
        summary="Images spread over the collection, to start from",
        dependencies=[after_change(state)],
    )
    def examples() -> Examples:
        collection = state.require_service().retriever.collection
        return Examples(
            images=[
                Example(
                    image_id=image.image_id,
                    image_path=image.image_path,
                    captions=[caption.text for caption in captions],
                    width=image.width,
                    height=image.height,
                )
                for image, captions in collection.sample(EXAMPLES)
            ]
        )
