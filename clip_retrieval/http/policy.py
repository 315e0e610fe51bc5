"""The table of routes: what each reads, what it costs, what it needs of the caller, whether it answers under overload.

Every route of the service has a row here, those that BentoML adds included. A path without a row is 404 and a method
without one is 405, whatever the application would answer; a test walks the routes and fails on one without a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clip_retrieval.access import cost
from clip_retrieval.contract.changes import MAX_CHANGES
from clip_retrieval.contract.embeddings import MAX_INPUTS
from clip_retrieval.contract.queries import MAX_SEARCHES

Cost = Literal["none", "text", "image", "mixed"]
"""What of the encoder a request takes. ``mixed`` is known when the body has been read."""

Needs = Literal["nothing", "page", "metrics", "docs", "search", "write", "admin"]
"""What the caller must be allowed to do: to read and search, to change the collection, or to change how it is served.

``metrics`` and ``docs`` need nothing, or to search where ``BENTO_CLIP_CLOSED`` names them. ``page`` is the empty search
page, which needs nothing, and for a program what is served, which needs to search.
"""

JSON, FORM = "application/json", "multipart/form-data"
SMALL, MEDIUM = 2**16, 2**20
VALUES_OF_SEARCH = 4096
"""Most values of one search; one with every part, condition and choice that there may be has 1,800."""
VALUES_OF_INPUT = 8
"""Most values of one input of ``/v1/embeddings``: an image as a content part has 5."""
VALUES_OF_CHANGE = 512
"""Most values of one change; one with every caption and field that there may be has 210."""


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """One row of the table."""

    cost: Cost = "none"
    media_type: str | None = None
    """The only Content-Type of its body; None for a route that reads no body."""
    max_body: int | None = SMALL
    """Most bytes of the body; None is the server's limit for uploads."""
    max_values: int = 1024
    """Most members and elements of a JSON body, at any depth."""
    needs: Needs = field(kw_only=True)
    """Has no default: a row that does not say what it needs is an error, and not an open door."""
    query: frozenset[str] | None = frozenset()
    """The query parameters that it reads. Others are refused; None passes over all, for what machines and links add."""
    always_answers: bool = False
    """Whether it takes no place of ``max_pending`` and has no time limit: cheap, and needed under overload too."""


SEQUENCE = frozenset({"min_sequence"})
"""For every route that reads the collection."""
READ = RoutePolicy(needs="search", query=SEQUENCE)
ALWAYS = RoutePolicy(needs="search", always_answers=True)
PAGE = RoutePolicy(needs="page", query=None, always_answers=True)
PROBE = RoutePolicy(needs="nothing", query=None, always_answers=True)
METRICS = RoutePolicy(needs="metrics", query=None, always_answers=True)
STATS = RoutePolicy(needs="metrics", always_answers=True)
DOCS = RoutePolicy(needs="docs", query=None)
WRITE = RoutePolicy(needs="write")
PUT_IMAGE = RoutePolicy("image", FORM, None, needs="write")
THUMBNAIL = RoutePolicy(needs="search", query=SEQUENCE | {"v"}, always_answers=True)  # a page asks for dozens at once
ORIGINAL = RoutePolicy(needs="search", query=SEQUENCE | {"download"}, always_answers=True)  # however long it takes
UPLOAD_SEARCH = RoutePolicy("image", FORM, None, needs="search", query=SEQUENCE | {"k", "where", "min_confidence"})

_ROUTES: Mapping[str, Mapping[str, RoutePolicy]] = {
    # the page and what is served
    "/": {"GET": PAGE},
    "/examples": {"GET": RoutePolicy(needs="search", query=SEQUENCE, always_answers=True)},
    "/thumbnails/{size}/{image_id}": {"GET": THUMBNAIL},
    "/originals/{image_id}": {"GET": ORIGINAL},
    "/fields": {"GET": RoutePolicy(needs="search", query=SEQUENCE | {"where"})},
    "/images": {"GET": RoutePolicy(needs="search", query=SEQUENCE | {"after", "limit"}), "POST": PUT_IMAGE},
    "/images/{image_id}": {
        "GET": READ,
        "PUT": PUT_IMAGE,
        "PATCH": RoutePolicy("text", JSON, MEDIUM, needs="write"),
        "DELETE": WRITE,
    },
    "/changes": {"POST": RoutePolicy("mixed", JSON, None, MAX_CHANGES * VALUES_OF_CHANGE, needs="write")},
    # searches and vectors
    "/search": {"POST": RoutePolicy("mixed", JSON, None, VALUES_OF_SEARCH, needs="search", query=SEQUENCE)},
    "/search/batch": {
        "POST": RoutePolicy("mixed", JSON, None, MAX_SEARCHES * VALUES_OF_SEARCH, needs="search", query=SEQUENCE)
    },
    "/search/images": {"POST": RoutePolicy("text", JSON, SMALL, needs="search", query=SEQUENCE)},
    "/search/text": {"POST": UPLOAD_SEARCH},
    "/search/similar": {"POST": UPLOAD_SEARCH},
    "/encode/text": {"POST": RoutePolicy("text", JSON, SMALL, needs="search")},
    "/encode/image": {"POST": RoutePolicy("image", FORM, None, needs="search")},
    "/encode_texts": {"POST": RoutePolicy("text", JSON, MEDIUM, needs="search")},
    "/encode_images": {"POST": RoutePolicy("image", JSON, None, needs="search")},
    # the same in the form of OpenAI's API
    "/v1/embeddings": {"POST": RoutePolicy("mixed", JSON, None, MAX_INPUTS * VALUES_OF_INPUT, needs="search")},
    "/v1/models": {"GET": ALWAYS},
    "/v1/models/{model}": {"GET": ALWAYS},
    "/clicks": {"POST": RoutePolicy(media_type=JSON, max_values=8, needs="search")},
    # operation
    "/health": {"GET": PROBE},
    "/stats": {"GET": STATS},
    "/cache/clear": {"POST": RoutePolicy(needs="admin")},
    "/artifact": {"GET": ALWAYS, "POST": RoutePolicy(media_type=JSON, needs="admin", always_answers=True)},
    "/compact": {"POST": RoutePolicy(needs="admin", always_answers=True)},
    "/metrics": {"GET": METRICS},
    "/livez": {"GET": PROBE},
    "/readyz": {"GET": PROBE},
    "/healthz": {"GET": PROBE},
    # descriptions of the API
    "/docs": {"GET": DOCS},
    "/docs/oauth2-redirect": {"GET": DOCS},
    "/redoc": {"GET": DOCS},
    "/docs.json": {"GET": DOCS},
    "/schema.json": {"GET": DOCS},
    "/static-offline-docs/{file}": {"GET": DOCS},
    "/static_content/{file}": {"GET": DOCS},
}

ROUTES: Mapping[str, Mapping[str, RoutePolicy]] = {
    path: {"GET": row["GET"], "HEAD": row["GET"], **row} if "GET" in row else row for path, row in _ROUTES.items()
}
"""By path, then by method; HEAD is wherever GET is. A parameter at the end of a path takes the rest of it."""

OF_BENTOML = frozenset(
    {
        "/encode_texts",
        "/encode_images",
        "/metrics",
        "/livez",
        "/readyz",
        "/healthz",
        "/schema.json",
        "/static_content/{file}",
    }
)
"""The paths that BentoML's application answers; this project's answers all others."""

_PREFIXES = tuple((path.partition("{")[0], path) for path in ROUTES if "{" in path)


def route_of(path: str) -> str | None:
    """The path in the table of routes that a request's path is one of; None for a path that is not served."""
    if path in ROUTES:
        return path
    return next((route for prefix, route in _PREFIXES if path.startswith(prefix)), None)


FREE = frozenset({"/livez", "/readyz", "/healthz", "/health", "/metrics"})
"""What operators and their machines ask every few seconds: no limit counts it."""


def base_cost(path: str, policy: RoutePolicy) -> int:
    """What a request to a path costs at least, known from its row alone, in the units of ``access/cost.py``."""
    if path in FREE:
        return cost.FREE
    encoded = {"none": 0, "text": cost.TEXT, "image": cost.IMAGE, "mixed": cost.TEXT}[policy.cost]
    changed = cost.CHANGE if policy.needs in {"write", "admin"} else 0
    return max(encoded + changed, cost.READ)


def methods_of(path: str) -> Mapping[str, RoutePolicy] | None:
    """The rows of a request's path, by method; None for a path that is not served."""
    route = route_of(path)
    return None if route is None else ROUTES[route]


def is_taken(prefix: str) -> bool:
    """Whether some path of the service begins with a prefix such as ``/search``: the two could not be distinguished."""
    return any(f"{path}/".startswith(f"{prefix}/") for path in ROUTES)
