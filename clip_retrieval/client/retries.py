"""Transports for httpx that send a request again when the server was overloaded or the connection failed.

Sent again are responses of 429 and 503, connections that failed, broke or were not accepted in time, and connections
that the server closed without a response. Everything else is passed on: a read timeout may mean that the server is
still at work. Any httpx transport can be wrapped.
"""

import asyncio
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import httpx

OVERLOAD_STATUSES = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
RETRIED_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent and how long the client waits in between.

    ``Retry-After`` in seconds is the wait, if all waits of a request together stay within the time limit for reading an
    answer; otherwise the answer is final at once, since to come earlier would be in vain. With ``patience_s`` a client
    waits for so long since the service last took one of its requests: what is refused to one is refused to the others.
    Without ``Retry-After`` the wait after attempt n (from 0) is drawn between half and all of
    ``min(base_s * 2**n, max_s)`` seconds. Raises ValueError for fewer than one attempt.
    """

    attempts: int = 4
    base_s: float = 0.2
    max_s: float = 5.0
    patience_s: float | None = None
    lost: int | None = None
    """After so many attempts a connection that fails is final; by default after ``attempts``."""
    on_wait: Callable[[httpx.Response], None] = lambda _: None
    """With ``patience_s``: told the refusal with which a wait begins, from the thread that waits."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")

    def wait_s(self, attempt: int, outcome: httpx.Response | Exception, patience_s: float = math.inf) -> float | None:
        """Seconds to wait after attempt number ``attempt`` (from 0); None if its outcome is final.

        ``patience_s`` is what is left of the seconds that may be waited as the service says.
        """
        if attempt + 1 >= self.attempts:
            return None
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in OVERLOAD_STATUSES:
                return None
            retry_after = outcome.headers.get("Retry-After", "")
            if retry_after.isdecimal():
                return float(retry_after) if float(retry_after) <= patience_s else None
        elif not isinstance(outcome, RETRIED_ERRORS) or (self.lost is not None and attempt + 1 >= self.lost):
            return None
        return min(self.base_s * float(2**attempt), self.max_s) * random.uniform(0.5, 1)


PATIENCE_S = 600
PATIENT = Retries(attempts=60, patience_s=PATIENCE_S, lost=4)
"""For a command that sends many requests: a limit, or changes that are being compacted, end it only after minutes."""


class _Patience:
    """How long the requests of one client wait. Safe to share between threads."""

    def __init__(self, retries: Retries, clock: Callable[[], float]) -> None:
        self._retries, self._clock = retries, clock
        self._lock = threading.Lock()
        self._since: float | None = None
        """When the first refusal came after which the service took no request yet."""

    def wait_s(
        self, request: httpx.Request, attempt: int, waited_s: float, outcome: httpx.Response | Exception
    ) -> float | None:
        """Seconds until ``request``, which has waited ``waited_s``, is sent again; None if its outcome is final."""
        if self._retries.patience_s is None:
            read_s = request.extensions.get("timeout", {}).get("read")
            return self._retries.wait_s(attempt, outcome, math.inf if read_s is None else float(read_s) - waited_s)
        if not isinstance(outcome, httpx.Response):
            return self._retries.wait_s(attempt, outcome)
        with self._lock:
            now, since = self._clock(), self._since
            is_refused = outcome.status_code in OVERLOAD_STATUSES
            self._since = None if not is_refused else now if since is None else since
        left_s = self._retries.patience_s - (0 if since is None else now - since)
        wait_s = self._retries.wait_s(attempt, outcome, left_s)
        if wait_s is None or wait_s > left_s:
            return None
        if since is None:
            self._retries.on_wait(outcome)
        return wait_s


class RetryTransport(httpx.BaseTransport):
    """Sends through ``transport``, or as httpx would without one, until ``retries`` say that the outcome is final.

    A response is read before it is returned, so that a connection that breaks within the body is tried again too.
    ``sleep`` waits for a number of seconds, and ``clock`` has the time in seconds.
    """

    def __init__(
        self,
        retries: Retries,
        transport: httpx.BaseTransport | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = _Patience(retries, clock)
        self._transport = transport or _DefaultTransport()
        self._sleep = sleep

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        attempt, waited_s = 0, 0.0
        while True:
            try:
                response = self._transport.handle_request(request)
                response.read()
            except httpx.RequestError as error:
                if (wait_s := self._patience.wait_s(request, attempt, waited_s, error)) is None:
                    raise
            else:
                if (wait_s := self._patience.wait_s(request, attempt, waited_s, response)) is None:
                    return response
            self._sleep(wait_s)
            attempt, waited_s = attempt + 1, waited_s + wait_s

    def close(self) -> None:
        self._transport.close()


class AsyncRetryTransport(httpx.AsyncBaseTransport):
    """``RetryTransport`` for ``httpx.AsyncClient``."""

    def __init__(
        self,
        retries: Retries,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience = _Patience(retries, clock)
        self._transport = transport or _AsyncDefaultTransport()
        self._sleep = sleep

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        attempt, waited_s = 0, 0.0
        while True:
            try:
                response = await self._transport.handle_async_request(request)
                await response.aread()
            except httpx.RequestError as error:
                if (wait_s := self._patience.wait_s(request, attempt, waited_s, error)) is None:
                    raise
            else:
                if (wait_s := self._patience.wait_s(request, attempt, waited_s, response)) is None:
                    return response
            await self._sleep(wait_s)
            attempt, waited_s = attempt + 1, waited_s + wait_s

    async def aclose(self) -> None:
        await self._transport.aclose()


class _DefaultTransport(httpx.BaseTransport):
    """A whole ``httpx.Client``: it takes the environment's proxies, which a client ignores once it has a transport."""

    def __init__(self) -> None:
        self._http = httpx.Client()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._http.send(request, stream=True)

    def close(self) -> None:
        self._http.close()


class _AsyncDefaultTransport(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self._http = httpx.AsyncClient()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._http.send(request, stream=True)

    async def aclose(self) -> None:
        await self._http.aclose()
