"""The middleware around every route, those of BentoML included, from the outermost to the innermost."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.access_log import AccessLog
from clip_retrieval.http.middleware.admission import Admission
from clip_retrieval.http.middleware.beforehand import Beforehand
from clip_retrieval.http.middleware.body_limit import BodyLimit
from clip_retrieval.http.middleware.body_memory import BodyMemory
from clip_retrieval.http.middleware.disconnects import CancelOnDisconnect
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.first_request import UntilDone
from clip_retrieval.http.middleware.json_check import JsonCheck
from clip_retrieval.http.middleware.native_images import NativeImages
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.serving.state import ServerState

MULTIPART_FRAME_BYTES = 64 * 1024
"""What a form may add to the bytes of the image in it."""


def middleware(
    state: ServerState, *, before_scrape: Callable[[], None], on_request: Callable[[Scope], bool]
) -> list[tuple[type[Any], dict[str, Any]]]:
    """Each class with its options. ``on_request`` gets each request until it returns True."""
    settings = state.settings

    def refuse() -> Response | None:
        trouble = state.trouble()
        return None if trouble is None else error_response(HTTPStatus.SERVICE_UNAVAILABLE, trouble)

    return [
        *([(AccessLog, dict[str, Any]())] if settings.access_log else []),
        (CancelOnDisconnect, {}),  # outside of ErrorEnvelope, which must not see its cancellation
        (ErrorEnvelope, {}),
        (RouteCheck, {}),
        (BodyMemory, {"memory": state.budget.bodies, "traffic": state.traffic}),
        (
            BodyLimit,
            {"traffic": state.traffic, "max_body_bytes": settings.max_upload_bytes + MULTIPART_FRAME_BYTES},
        ),
        (Admission, {"traffic": state.traffic, "timeout_s": settings.request_timeout_s}),
        (JsonCheck, {}),
        (Beforehand, {"hooks": {"/metrics": before_scrape, "/readyz": refuse}}),
        (NativeImages, {"state": state}),
        (UntilDone, {"hook": on_request}),
    ]
