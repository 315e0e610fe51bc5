"""ASGI middleware around every route of the service, the native BentoML ones included.

``Guard`` bounds what a request may cost: bytes while they are read, requests under way at once, and time.
``Disconnects`` ends the work for a client that went away.
``MediaTypes`` lets no body of another kind than a route reads come near a parser.
``ErrorBodies`` gives every answer of 400 and above the one body that the API promises, whoever made it.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.contract.base import ErrorBody, describe
from clip_retrieval.serving.traffic import Traffic

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
CLIENT_CLOSED_REQUEST = 499
MAX_DETAIL = 1000
"""Characters of a detail that are shown: it quotes the request, which may be large."""
DRAIN_BYTES = 64 * 2**20
"""How much of a body that is too large is read and dropped, so that the client gets to see the answer."""

UNBOUNDED = frozenset({"/", "/examples", "/health", "/stats", "/metrics", "/livez", "/readyz", "/healthz"})
"""Cheap paths that must answer under overload too."""
UNBOUNDED_BELOW = "/thumbnails/"
"""Likewise all paths that begin so: a page asks for dozens at once, which would take the places of queries."""


def error_response(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error answer in the API's own form."""
    detail = detail.encode("utf-8", "replace").decode()  # it may quote lone surrogates, which have no UTF-8
    if len(detail) > MAX_DETAIL:
        detail = detail[:MAX_DETAIL] + " …"
    body = ErrorBody(error=HTTPStatus(status).phrase, detail=detail)
    return JSONResponse(body.model_dump(), status, headers)


class Guard:
    """Turns away what is too large (413), too much (503 with Retry-After) or too slow (504).

    ``smaller_bodies`` holds the most bytes of a body by path, for paths that need less than ``max_body_bytes``. Of the
    requests under way at most ``max_slow`` are on ``slow_paths``: left alone, the slower kind fills the queue and the
    quick one waits behind it. ``traffic`` is kept up to date for whoever else wants to know.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_pending: int,
        timeout_s: float,
        slow_paths: Collection[str] = (),
        max_slow: int = 0,
        smaller_bodies: Mapping[str, int] | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._smaller_bodies = smaller_bodies or {}
        self._max_pending = max_pending
        self._slow_paths = slow_paths
        self._max_slow = max_slow
        self._timeout_s = timeout_s
        self._traffic = traffic or Traffic()
        self._slow = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNBOUNDED or scope["path"].startswith(UNBOUNDED_BELOW):
            await self._app(scope, receive, send)
            return
        slow = scope["path"] in self._slow_paths
        full = slow and self._slow >= self._max_slow
        if full or self._traffic.pending >= self._max_pending:
            self._traffic.turned_away["too_many"] += 1
            count, kind = (self._slow, "requests of this kind") if full else (self._traffic.pending, "requests")
            response = error_response(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{count} {kind} are under way, which is all that is accepted; try again later",
                {"Retry-After": str(RETRY_AFTER_S)},
            )
            await response(scope, receive, send)
            return
        self._traffic.pending += 1
        self._slow += slow
        try:
            await self._bounded(scope, receive, send)
        finally:
            self._traffic.pending -= 1
            self._slow -= slow

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = min(self._max_body_bytes, self._smaller_bodies.get(scope["path"], self._max_body_bytes))
        read = 0
        too_large = started = ended = False

        async def counted() -> Message:
            nonlocal read, too_large, ended
            message = await receive()
            read += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if read > limit:
                too_large = True
                raise _BodyTooLarge
            return message

        async def unless_too_large(message: Message) -> None:
            nonlocal started
            if not too_large:
                started = True
                await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"")
        try:
            if declared.isdigit() and int(declared) > limit:
                too_large = True
            else:
                async with asyncio.timeout(self._timeout_s):
                    await self._app(scope, counted, unless_too_large)
        except TimeoutError:
            self._traffic.turned_away["too_slow"] += 1
            if started:
                raise
            response = error_response(
                HTTPStatus.GATEWAY_TIMEOUT, f"there was no answer within {self._timeout_s:g} seconds"
            )
            await response(scope, receive, send)
        except _BodyTooLarge:
            pass
        if too_large:
            self._traffic.turned_away["too_large"] += 1
        if too_large and not started:
            if not ended:
                await _drain(receive, DRAIN_BYTES - read)
            response = error_response(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over the limit of {limit} bytes"
            )
            response.headers["Connection"] = "close"
            await response(scope, receive, send)


class Disconnects:
    """Cancels the work for a client that closed its connection before it had its answer.

    The answer is then 499, nginx's number for this. Nobody reads it, but BentoML's time limit, its log and its metrics
    wait for an answer: without one the request would count as under way, and hold up a stop, until the limit is over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        watcher: asyncio.Task[None] | None = None
        gone = started = False

        def leave() -> None:
            nonlocal gone
            gone = True
            task.cancel()

        async def watch() -> None:
            # Ended here, for a task keeps the exception that ends it, and that all that its frames know.
            with contextlib.suppress(asyncio.CancelledError):
                while (await receive())["type"] != "http.disconnect":
                    pass
                leave()

        async def watched() -> Message:
            nonlocal watcher
            message = await receive()
            if message["type"] == "http.disconnect":
                leave()
                await asyncio.sleep(0)  # cancelled here: a reader that got the message might make an error of it
            elif watcher is None and not message.get("more_body", False):  # until then the body is its reader's
                watcher = asyncio.create_task(watch())
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, watched, noted)
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
            if not started:
                await send({"type": "http.response.start", "status": CLIENT_CLOSED_REQUEST, "headers": []})
                await send({"type": "http.response.body"})
        finally:
            if watcher is not None:
                watcher.cancel()
                # Its context knows the request, and that ``watched``: a circle that only the garbage collector would
                # break, with a hundred objects a request.
                watcher = None


class MediaTypes:
    """Turns away (415) a POST whose Content-Type is not the one that its path reads, by ``expected``.

    BentoML's own routes would otherwise read forms and guess at the rest.
    """

    def __init__(self, app: ASGIApp, *, expected: Mapping[str, str]) -> None:
        self._app = app
        self._expected = expected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        expected = self._expected.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if expected is not None:
            header = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
            if header.partition(";")[0].strip().lower() != expected:
                response = error_response(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                    f"this path reads {expected}; the Content-Type is {header or 'missing'}",
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class ErrorBodies:
    """Rewrites error answers of other makers as ``{"error", "detail"}``, and turns an unhandled exception into one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""
        started = False

        async def rewritten(message: Message) -> None:
            nonlocal start, body, started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= HTTPStatus.BAD_REQUEST:
                    start = message
                    return
            elif start is not None:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _as_error_body(start, body)(scope, receive, send)
                return
            await send(message)

        try:
            await self._app(scope, receive, rewritten)
        except Exception:
            log.exception("unhandled error in %s %s", scope["method"], scope["path"])
            if started:
                raise
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says why")
            await response(scope, receive, send)


class _BodyTooLarge(Exception):
    """Raised into whoever reads the body."""


async def _drain(receive: Receive, limit: int) -> None:
    more = True
    while more and limit > 0:
        message = await receive()
        if message["type"] != "http.request":
            return
        limit -= len(message.get("body", b""))
        more = message.get("more_body", False)


def _as_error_body(start: Message, body: bytes) -> JSONResponse:
    status: int = start["status"]
    detail, misplaced = _detail(body)
    if misplaced and status == HTTPStatus.BAD_REQUEST:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    kept = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in start["headers"]
        if name.lower() not in {b"content-length", b"content-type"}
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        kept.setdefault("retry-after", str(RETRY_AFTER_S))
    if detail in {"", HTTPStatus(status).phrase}:
        detail = HTTPStatus(status).description or HTTPStatus(status).phrase
    return error_response(status, detail, kept)


def _detail(body: bytes) -> tuple[str, bool]:
    """The most telling sentence in an error body of unknown form, and whether it is about values in good JSON.

    BentoML answers 400 for those, too.
    """
    try:
        value: Any = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip(), False
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return str(value), False
    detail = value.get("detail") or value.get("error") or ""
    if not isinstance(detail, list):
        return str(detail), False
    kinds = [problem.get("type") for problem in detail if isinstance(problem, dict)]
    return describe(detail), None not in kinds and "json_invalid" not in kinds
