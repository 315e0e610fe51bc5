"""Refuses a form that was cut off: its parser passes over the part that has no end, and whatever came after it."""

from http import HTTPStatus

from python_multipart.multipart import parse_options_header
from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.policy import FORM
from clip_retrieval.http.request_context import RequestContext, header
from clip_retrieval.http.whole_body import give_again, read_whole


class FormCheck:
    """Answers 422 for a form without the line that ends it (RFC 2046, section 5.1.1)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        boundary = None
        if context is not None and context.policy.media_type == FORM:
            boundary = parse_options_header(header(scope, b"content-type"))[1].get(b"boundary")
        if boundary is None:
            await self._app(scope, receive, send)
            return
        body = await read_whole(receive)
        if body is None:
            return
        delimiter = b"--" + boundary
        if delimiter in body and body.rfind(delimiter + b"--") < 0:
            detail = f"the form is cut off: its last line, --{boundary.decode('latin-1')}--, is missing; send it whole"
            await error_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail)(scope, receive, send)
            return
        given = give_again(body, receive)
        del body  # what has been parsed need not be held twice
        await self._app(scope, given, send)
