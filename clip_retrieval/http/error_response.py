"""The one body of every answer of 400 and above."""

from http import HTTPStatus

from starlette.responses import JSONResponse

from clip_retrieval.contract.base import ErrorBody

RETRY_AFTER_S = {HTTPStatus.SERVICE_UNAVAILABLE: 1, HTTPStatus.TOO_MANY_REQUESTS: 30}
"""In how many seconds it may be different: overload is over soon; room for changes is made by a compaction."""
MAX_DETAIL = 1000
"""Characters of a detail that are shown: it quotes the request, which may be large."""


def error_response(status: int, detail: str = "", headers: dict[str, str] | None = None) -> JSONResponse:
    """An error answer in the API's own form; without a detail it says what the status means.

    One of 503 or 429 has a ``Retry-After``.
    """
    kind = HTTPStatus(status)
    if detail in {"", kind.phrase}:
        detail = kind.description or kind.phrase
    detail = detail.encode("utf-8", "replace").decode()  # it may quote lone surrogates, which have no UTF-8
    if len(detail) > MAX_DETAIL:
        detail = detail[:MAX_DETAIL] + " …"
    if kind in RETRY_AFTER_S:
        headers = {"retry-after": str(RETRY_AFTER_S[kind]), **(headers or {})}
    return JSONResponse(ErrorBody(error=kind.phrase, detail=detail).model_dump(), status, headers)
