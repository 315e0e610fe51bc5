"""The table of routes: what each reads, what it costs, what it needs of the caller, whether it answers under overload.

Every route of the service has a row here, those that BentoML adds included. A path without a row is 404 and a method
without one is 405, whatever the application would answer; a test walks the routes and fails on one without a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cost = Literal["none", "text", "image", "mixed"]
"""What of the encoder a request takes. ``mixed`` is known when the body has been read."""

JSON, FORM = "application/json", "multipart/form-data"
SMALL, MEDIUM = 2**16, 2**20


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """One row of the table."""

    cost: Cost = "none"
    media_type: str | None = None
    """The only Content-Type of its body; None for a route that reads no body."""
    max_body: int | None = SMALL
    """Most bytes of the body; None is the server's limit for uploads."""
    needs: Literal["nothing", "write", "admin"] = "nothing"
    """What the caller must be allowed to do: to read, to change the collection, or to change how it is served."""
    query: frozenset[str] | None = frozenset()
    """The query parameters that it reads. Others are refused; None passes over all, for what machines and links add."""
    always_answers: bool = False
    """Whether it takes no place of ``max_pending`` and has no time limit: cheap, and needed under overload too."""


READ = RoutePolicy()
ALWAYS = RoutePolicy(always_answers=True)
PROBE = RoutePolicy(query=None, always_answers=True)
PAGES = RoutePolicy(query=None)
WRITE = RoutePolicy(needs="write")
PUT_IMAGE = RoutePolicy("image", FORM, None, "write")
THUMBNAIL = RoutePolicy(query=frozenset({"v"}), always_answers=True)  # a page asks for dozens at once
SEQUENCE = frozenset({"min_sequence"})
UPLOAD_SEARCH = RoutePolicy("image", FORM, None, query=SEQUENCE | {"k"})

_ROUTES: Mapping[str, Mapping[str, RoutePolicy]] = {
    # the page and what is served
    "/": {"GET": PROBE},
    "/examples": {"GET": ALWAYS},
    "/thumbnails/{size}/{image_id}": {"GET": THUMBNAIL},
    "/fields": {"GET": READ},
    "/images": {"GET": RoutePolicy(query=frozenset({"after", "limit"})), "POST": PUT_IMAGE},
    "/images/{image_id}": {
        "GET": READ,
        "PUT": PUT_IMAGE,
        "PATCH": RoutePolicy("text", JSON, MEDIUM, "write"),
        "DELETE": WRITE,
    },
    "/changes": {"POST": RoutePolicy("mixed", JSON, None, "write")},
    # searches and vectors
    "/search": {"POST": RoutePolicy("mixed", JSON, None, query=SEQUENCE)},
    "/search/batch": {"POST": RoutePolicy("mixed", JSON, None, query=SEQUENCE)},
    "/search/images": {"POST": RoutePolicy("text", JSON, SMALL, query=SEQUENCE)},
    "/search/text": {"POST": UPLOAD_SEARCH},
    "/search/similar": {"POST": UPLOAD_SEARCH},
    "/encode/text": {"POST": RoutePolicy("text", JSON, SMALL)},
    "/encode/image": {"POST": RoutePolicy("image", FORM, None)},
    "/encode_texts": {"POST": RoutePolicy("text", JSON, MEDIUM)},
    "/encode_images": {"POST": RoutePolicy("image", JSON, None)},
    # operation
    "/health": {"GET": PROBE},
    "/stats": {"GET": ALWAYS},
    "/cache/clear": {"POST": RoutePolicy(needs="admin")},
    "/artifact": {"GET": ALWAYS, "POST": RoutePolicy(media_type=JSON, needs="admin", always_answers=True)},
    "/compact": {"POST": RoutePolicy(needs="admin", always_answers=True)},
    "/metrics": {"GET": PROBE},
    "/livez": {"GET": PROBE},
    "/readyz": {"GET": PROBE},
    "/healthz": {"GET": PROBE},
    # descriptions of the API
    "/docs": {"GET": PAGES},
    "/docs/oauth2-redirect": {"GET": PAGES},
    "/redoc": {"GET": PAGES},
    "/docs.json": {"GET": PAGES},
    "/schema.json": {"GET": PAGES},
    "/static-offline-docs/{file}": {"GET": PAGES},
    "/static_content/{file}": {"GET": PAGES},
}

ROUTES: Mapping[str, Mapping[str, RoutePolicy]] = {
    path: {"GET": row["GET"], "HEAD": row["GET"], **row} if "GET" in row else row for path, row in _ROUTES.items()
}
"""By path, then by method; HEAD is wherever GET is. A parameter at the end of a path takes the rest of it."""

_PREFIXES = tuple((path.partition("{")[0], row) for path, row in ROUTES.items() if "{" in path)


def methods_of(path: str) -> Mapping[str, RoutePolicy] | None:
    """The rows of a request's path, by method; None for a path that is not served."""
    if (row := ROUTES.get(path)) is not None:
        return row
    return next((row for prefix, row in _PREFIXES if path.startswith(prefix)), None)
