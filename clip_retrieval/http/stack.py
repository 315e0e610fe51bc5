"""The middleware around every route, those of BentoML included, from the outermost to the innermost."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from clip_retrieval.access.addresses import networks
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.access_log import AccessLog
from clip_retrieval.http.middleware.admission import Admission
from clip_retrieval.http.middleware.authentication import Authentication
from clip_retrieval.http.middleware.beforehand import Beforehand
from clip_retrieval.http.middleware.body_limit import BodyLimit
from clip_retrieval.http.middleware.body_memory import BodyMemory
from clip_retrieval.http.middleware.cors import Cors
from clip_retrieval.http.middleware.disconnects import CancelOnDisconnect
from clip_retrieval.http.middleware.error_bodies import ErrorEnvelope
from clip_retrieval.http.middleware.first_request import UntilDone
from clip_retrieval.http.middleware.form_check import FormCheck
from clip_retrieval.http.middleware.host_check import HostCheck
from clip_retrieval.http.middleware.intake import Intake
from clip_retrieval.http.middleware.json_check import JsonCheck
from clip_retrieval.http.middleware.limits import Limits
from clip_retrieval.http.middleware.native_images import NativeImages
from clip_retrieval.http.middleware.native_texts import NativeTexts
from clip_retrieval.http.middleware.own_routes import OwnRoutes
from clip_retrieval.http.middleware.proxies import Proxies, RootPath
from clip_retrieval.http.middleware.request_ids import RequestIds
from clip_retrieval.http.middleware.route_check import RouteCheck
from clip_retrieval.http.origins import Origins
from clip_retrieval.http.overload import Overload, Refusals
from clip_retrieval.http.policy import is_taken
from clip_retrieval.http.uvicorn_protocol import Wire, most_connections
from clip_retrieval.serving.state import ServerState


def wire(state: ServerState) -> Wire:
    """How connections are treated. What is around the application comes before BentoML's own middleware."""
    settings = state.settings
    origins = Origins(settings.cors_origins)

    def named(app: ASGIApp) -> ASGIApp:
        return RequestIds(app if origins.none else Cors(app, origins=origins))

    return Wire(
        keep_alive_s=settings.keep_alive_s,
        patience_s=settings.receive_timeout_s,
        max_connections=settings.max_connections or most_connections(),
        around=partial(Overload, refusals=Refusals(state.traffic, around=named)),
    )


def middleware(
    state: ServerState, *, own: ASGIApp, before_scrape: Callable[[], None], on_request: Callable[[Scope], bool]
) -> list[tuple[type[Any], dict[str, Any]]]:
    """Each class with its options. ``own`` answers what is not BentoML's; ``on_request`` gets each request until it
    returns True.

    Raises ClipRetrievalError for a prefix of the path that is one of the service's own paths.
    """
    settings = state.settings
    if settings.root_path and is_taken(settings.root_path):
        raise ClipRetrievalError(
            f"BENTO_CLIP_ROOT_PATH is {settings.root_path}, with which a path of this service begins; choose another"
        )
    origins = Origins(settings.cors_origins)
    proxies = {"trusted": networks(settings.trusted_proxies), "root_path": settings.root_path}
    intake = Intake(
        max_bytes=lambda: settings.max_body_memory or state.budget.arriving,
        patience_s=settings.receive_timeout_s,
        min_rate=settings.min_body_rate,
    )

    def refuse() -> Response | None:
        trouble = state.trouble()
        return None if trouble is None else error_response(HTTPStatus.SERVICE_UNAVAILABLE, trouble)

    return [
        (RequestIds, {}),
        *([(AccessLog, dict[str, Any]())] if settings.access_log else []),
        (CancelOnDisconnect, {}),  # outside of ErrorEnvelope, which must not see its cancellation
        *([(Proxies, proxies)] if settings.trusted_proxies or settings.root_path else []),
        *([] if origins.none else [(Cors, {"origins": origins})]),
        (ErrorEnvelope, {}),
        *([(HostCheck, {"hosts": settings.hosts})] if settings.hosts else []),
        (RouteCheck, {"origins": origins}),
        (Authentication, {"gate": state.gate, "closed": settings.closed}),
        *([] if state.limiter is None else [(Limits, {"limiter": state.limiter, "traffic": state.traffic})]),
        (
            BodyLimit,
            {"traffic": state.traffic, "intake": intake, "max_body_bytes": settings.max_body_bytes},
        ),
        (BodyMemory, {"memory": state.budget.bodies, "traffic": state.traffic}),
        (Admission, {"traffic": state.traffic, "timeout_s": settings.request_timeout_s}),
        (JsonCheck, {}),
        (FormCheck, {}),
        (Beforehand, {"hooks": {"/metrics": before_scrape, "/readyz": refuse}}),
        (NativeImages, {"state": state}),
        *([] if state.limiter is None else [(NativeTexts, dict[str, Any]())]),
        (UntilDone, {"hook": on_request}),
        *([(RootPath, dict[str, Any]())] if settings.trusted_proxies or settings.root_path else []),
        (OwnRoutes, {"own": own}),
    ]
