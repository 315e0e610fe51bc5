"""The middleware around every route, those of BentoML included, from the outermost to the innermost."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.access_log import AccessLog
from clip_retrieval.http.middleware.admission import Admission
from clip_retrieval.http.middleware.beforehand import Beforehand
from clip_retrieval.http.middleware.body_limit import BodyLimit
from clip_retrieval.http.middleware.disconnects import CancelOnDisconnect
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.first_request import UntilDone
from clip_retrieval.http.middleware.intake import Intake
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.overload import Overload, Refusals
from clip_retrieval.http.uvicorn_protocol import Wire
from clip_retrieval.serving.state import ServerState


def wire(state: ServerState) -> Wire:
    """How connections are treated. What is around the application comes before BentoML's own middleware."""
    settings = state.settings
    return Wire(
        keep_alive_s=settings.keep_alive_s,
        patience_s=settings.receive_timeout_s,
        around=partial(Overload, refusals=Refusals(state.traffic)),
    )


def middleware(
    state: ServerState, *, before_scrape: Callable[[], None], on_request: Callable[[Scope], bool]
) -> list[tuple[type[Any], dict[str, Any]]]:
    """Each class with its options. ``on_request`` gets each request until it returns True."""
    settings = state.settings
    intake = Intake(
        max_bytes=settings.body_memory, patience_s=settings.receive_timeout_s, min_rate=settings.min_body_rate
    )

    def refuse() -> Response | None:
        trouble = state.trouble()
        return None if trouble is None else error_response(HTTPStatus.SERVICE_UNAVAILABLE, trouble)

    return [
        *([(AccessLog, dict[str, Any]())] if settings.access_log else []),
        (CancelOnDisconnect, {}),  # outside of ErrorEnvelope, which must not see its cancellation
        (ErrorEnvelope, {}),
        (RouteCheck, {}),
        (
            BodyLimit,
            {"traffic": state.traffic, "intake": intake, "max_body_bytes": settings.max_body_bytes},
        ),
        (Admission, {"traffic": state.traffic, "timeout_s": settings.request_timeout_s}),
        (Beforehand, {"hooks": {"/metrics": before_scrape, "/readyz": refuse}}),
        (UntilDone, {"hook": on_request}),
    ]
