"""A line in the log for each request: what was asked, how it ended and how long that took."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.http.request_context import RequestContext, request_id_of
from clip_retrieval.serving.log_lines import escaped

LOGGER = "bentoml.access"
"""A child of the logger that BentoML gives a handler; BentoML's own access log is off."""

QUIET_PATHS = frozenset({"/metrics", "/livez", "/readyz", "/healthz"})
"""What machines ask every few seconds."""

THUMBNAILS = "/thumbnails/"
"""A page asks for dozens of these at once: only those that went wrong have a line."""

log = logging.getLogger(LOGGER)


class AccessLog:
    """Logs each request when its answer is complete; ``record.access`` has the fields for a structured log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = response_bytes = 0

        async def noted(message: Message) -> None:
            nonlocal status, response_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                response_bytes += 0 if scope["method"] == "HEAD" else len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            _log(scope, status, response_bytes, (time.perf_counter() - start) * 1e3)


def _log(scope: Scope, status: int, response_bytes: int, duration_ms: float) -> None:
    path = scope["path"]  # by now without the prefix below which a proxy serves this
    if (
        path in QUIET_PATHS
        or (path.startswith(THUMBNAILS) and 200 <= status < 400)
        or not log.isEnabledFor(logging.INFO)
    ):
        return
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "duration_ms": round(duration_ms, 3),
        "request_bytes": int(declared) if declared.isdigit() else 0,
        "response_bytes": response_bytes,
        "client": _client(scope),
        "request_id": request_id_of(scope),
    }
    context = RequestContext.of(scope)
    if context is not None and context.caller.key is not None:
        fields["key"] = context.caller.key
    shown = escaped(path)  # a client chooses it: a line break must not look like another line of the log
    line = (scope["method"], shown, status, duration_ms, fields["request_id"])
    log.info("%s %s %d %.1f ms %s", *line, extra={"access": fields})


def _client(scope: Scope) -> str:
    """Who sent the request, ``host:port``; behind a trusted proxy the host that the proxy names."""
    host, port = scope.get("client") or ("", 0)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port or not host else shown
