"""Lets in who may do what the row of the route needs."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.access import caller as callers
from clip_retrieval.access.gate import Gate, Refused
from clip_retrieval.http.accept import prefers_page
from clip_retrieval.http.audit import Auditor
from clip_retrieval.http.credentials import REALM, TwoKeys, challenge, key_of
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.request_context import RequestContext, whole_list

TWO_KEYS = "the request brings two different API keys; send one, as Authorization: Bearer KEY or as X-API-Key: KEY"


class Authentication:
    """Answers 401 to who brings no key or one that is not accepted, and 403 to a key that allows too little.

    Whom it lets in is the ``caller`` of the request's context. ``closed`` names what of ``metrics`` and ``docs`` needs
    a key. An attempt to change something that is refused has its line in the record of changes.
    """

    def __init__(self, app: ASGIApp, *, gate: Gate, closed: frozenset[str] = frozenset()) -> None:
        self._app, self._gate, self._closed = app, gate, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        if context is None:
            await self._app(scope, receive, send)
            return
        try:
            secret = key_of(scope)
        except TwoKeys:
            headers = {"WWW-Authenticate": f'{REALM}, error="invalid_request"'}
            await error_response(HTTPStatus.BAD_REQUEST, TWO_KEYS, headers)(scope, receive, send)
            return
        address = context.caller.address or (scope.get("client") or ("",))[0]
        context.caller = self._gate.know(address, secret)
        needed = self._needed(context, scope)
        if needed is None:
            await self._app(scope, receive, send)
            return
        refused = self._gate.refusal(context.caller, needed, brings_key=secret is not None)
        if refused is not None:
            await self._refuse(refused, scope, receive, send)
        elif self._gate.asks_for_keys:
            await self._app(scope, receive, _kept_private(send))
        else:
            await self._app(scope, receive, send)

    def _needed(self, context: RequestContext, scope: Scope) -> callers.Scope | None:
        """The scope that a request needs; None if it needs none."""
        match context.policy.needs:
            case "nothing":
                return None
            case "page":
                return None if prefers_page(whole_list(scope, b"accept")) else "search"
            case "metrics" | "docs" as group:
                return "search" if group in self._closed else None
            case needed:
                return needed

    async def _refuse(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        if refused.needed != "search":
            Auditor.of(scope).note("refused", method=scope["method"], path=scope["path"], why=refused.why)
        is_final = refused.why in {"too little", "read-only"}
        status = HTTPStatus.FORBIDDEN if is_final else HTTPStatus.UNAUTHORIZED
        headers = {} if refused.why == "read-only" else {"WWW-Authenticate": challenge(refused)}
        await error_response(status, refused.detail, headers)(scope, receive, send)


def _kept_private(send: Send) -> Send:
    """Have no cache give the answer to another client: caches know nothing of X-API-Key (RFC 9111, section 3.5)."""

    async def private(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            said = headers.get(b"cache-control", b"private")
            others = [one for one in message.get("headers", ()) if one[0] != b"cache-control"]
            message = {**message, "headers": [*others, (b"cache-control", said.replace(b"public", b"private"))]}
        await send(message)

    return private
