"""Lets each caller ask for as much as the limit allows, and says with each answer what is left.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10: ``RateLimit-Policy: "default";q=600;w=60`` is the
limit, in units of a search with one text, and the seconds that it is for; ``RateLimit: "default";r=412;t=17`` says what
is left and in how many seconds more is.
"""

from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.access.limits import CURRENT, Account, Limiter
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.policy import base_cost
from clip_retrieval.http.request_context import RequestContext
from clip_retrieval.http.statuses import status_of
from clip_retrieval.serving.traffic import Traffic


class Limits:
    """Answers 429 to a caller whose limit is reached, with the seconds after which the same request would be taken.

    What a row of the table costs is paid before the body is read; a handler that finds that a request costs more has
    it pay the rest (``request_context.charge``).
    """

    def __init__(self, app: ASGIApp, *, limiter: Limiter, traffic: Traffic) -> None:
        self._app = app
        self._limiter = limiter
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext.of(scope)
        cost = 0 if context is None else base_cost(scope["path"], context.policy)
        if context is None or not cost:
            await self._app(scope, receive, send)
            return
        account = context.account = Account(self._limiter, context.caller.name)
        limited = _Limited(account, send, self._traffic)
        try:
            await account.settle(cost)
        except ClipRetrievalError as error:
            await self._traffic.pace.hold()
            await error_response(status_of(error), str(error))(scope, receive, limited.send)
            return
        present = CURRENT.set(account)
        try:
            await self._app(scope, receive, limited.send)
        finally:
            CURRENT.reset(present)


class _Limited:
    """The answer of one request, with the headers of its limit."""

    def __init__(self, account: Account, send: Send, traffic: Traffic) -> None:
        self._account = account
        self._traffic = traffic
        self._send = send
        self._is_replaced = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            refusal = self._account.refusal
            if refusal is not None:
                self._traffic.reject("over_limit")
            if refusal is not None and message["status"] != HTTPStatus.TOO_MANY_REQUESTS:
                self._is_replaced = True  # a validator of BentoML's can only say that a value is wrong
                await self._refuse(refusal)
                return
            self._add_headers(message)
        if not self._is_replaced:
            await self._send(message)

    async def _refuse(self, refusal: str) -> None:
        response = error_response(HTTPStatus.TOO_MANY_REQUESTS, refusal)
        start: Message = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": list(response.raw_headers),
        }
        self._add_headers(start)
        await self._send(start)
        await self._send({"type": "http.response.body", "body": response.body})

    def _add_headers(self, start: Message) -> None:
        quota, standing = self._account.quota, self._account.standing
        headers = MutableHeaders(scope=start)
        headers["RateLimit-Policy"] = f'"default";q={quota.units};w={quota.window_s}'
        if standing is not None:
            headers["RateLimit"] = f'"default";r={standing.remaining};t={standing.reset_s}'
            if standing.wait_s is not None and self._account.refusal is not None:
                headers["Retry-After"] = str(standing.wait_s)
