"""Gives every answer of 400 and above the one body that the API promises, whatever made it."""

import json
import logging
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.contract.base import describe
from clip_retrieval.http.error_response import error_response

log = logging.getLogger(__name__)


class ErrorEnvelope:
    """Rewrites error answers of BentoML and FastAPI as ``{"error", "detail"}``, and an unhandled exception too.

    Paths of OpenAI's API have its form of an error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""
        started = ended = False

        async def rewritten(message: Message) -> None:
            nonlocal start, body, started, ended
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= HTTPStatus.BAD_REQUEST:
                    start = message
                    return
            else:
                ended = not message.get("more_body", False)
            if message["type"] == "http.response.body" and start is not None:
                body += message.get("body", b"")
                if ended:
                    await _as_error_body(start, body, scope["path"])(scope, receive, send)
                return
            await send(message)

        try:
            await self._app(scope, receive, rewritten)
        except Exception:
            log.exception("unhandled error in %s %r", scope["method"], scope["path"])
            if ended:  # Starlette answers 500 and raises what it has answered
                return
            if started:
                raise
            detail = "the service failed; its log says why"
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR, detail, path=scope["path"])
            await response(scope, receive, send)


def _as_error_body(start: Message, body: bytes, path: str) -> JSONResponse:
    status: int = start["status"]
    detail, is_about_values = _detail(body)
    if is_about_values and status == HTTPStatus.BAD_REQUEST:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    kept = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in start["headers"]
        if name.lower() not in {b"content-length", b"content-type"}
    }
    return error_response(status, detail, kept, path=path)


def _detail(body: bytes) -> tuple[str, bool]:
    """The most telling sentence in an error body, and whether it is about values in good JSON.

    BentoML answers 400 for those, too. The shapes are: a text; a JSON text; ``{"error"}`` or ``{"detail"}`` with a
    sentence; ``{"detail"}`` with pydantic's list of problems; and a list of one of these.
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
