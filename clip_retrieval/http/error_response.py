"""The one body of every answer of 400 and above; below ``/v1/`` the one that OpenAI's clients read."""

from http import HTTPStatus

from starlette.responses import JSONResponse

from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.embeddings import OpenAiError, OpenAiErrorBody

RETRY_AFTER_S = {HTTPStatus.SERVICE_UNAVAILABLE: 1, HTTPStatus.TOO_MANY_REQUESTS: 30}
"""In how many seconds it may be different: overload is over soon; room for changes is made by a compaction."""
MAX_DETAIL = 1000
"""Characters of a detail that are shown: it quotes the request, which may be large."""
OPENAI = "/v1/"
"""Paths that OpenAI's clients ask; they show ``error.message`` and nothing else of an error."""


def error_body(kind: HTTPStatus, detail: str) -> ErrorBody:
    """What went wrong, as a body that JSON can carry. A long detail is cut."""
    detail = detail.encode("utf-8", "replace").decode()  # it may quote lone surrogates, which have no UTF-8
    if len(detail) > MAX_DETAIL:
        detail = detail[:MAX_DETAIL] + " …"
    return ErrorBody(error=kind.phrase, detail=detail)


def error_response(
    status: int, detail: str = "", headers: dict[str, str] | None = None, *, path: str = ""
) -> JSONResponse:
    """An error answer in the API's own form, or in OpenAI's for its paths.

    Without a detail it says what the status means. One of 503 or 429 has a ``Retry-After``.
    """
    kind = HTTPStatus(status)
    if detail in {"", kind.phrase}:
        detail = kind.description or kind.phrase
    if kind in RETRY_AFTER_S:
        headers = {"retry-after": str(RETRY_AFTER_S[kind]), **(headers or {})}
    own = error_body(kind, detail)
    body: ErrorBody | OpenAiErrorBody = own
    if path.startswith(OPENAI):
        group = "server_error" if kind >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        body = OpenAiErrorBody(error=OpenAiError(message=own.detail, type=group, code=kind.name.lower()))
    return JSONResponse(body.model_dump(), status, headers)
