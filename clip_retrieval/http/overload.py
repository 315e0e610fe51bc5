"""What comes before everything else: requests that cannot be let in are refused for next to nothing.

A refusal by the whole stack (metrics, log, error body, table) costs as much as a good part of an answer. Here a refusal
is two messages that were made beforehand, and one line in the log for all those of a second; see ``serving/pace.py``
for when it is given.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.http.error_response import OPENAI, error_response
from clip_retrieval.http.middleware.access_log import LOGGER
from clip_retrieval.http.policy import methods_of
from clip_retrieval.serving.traffic import RETRY, Traffic

log = logging.getLogger(LOGGER)


class Overload:
    """Answers 503 while there is no place for a request; everything else passes."""

    def __init__(self, app: ASGIApp, *, refusals: "Refusals") -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refusals.concern(scope):
            await self._refusals.answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Refusals:
    """Those of one process, whatever connection they are for."""

    def __init__(self, traffic: Traffic, *, around: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> None:
        """``around`` puts what a refusal needs beside its body around it, such as the headers of CORS."""
        self._traffic = traffic
        self._is_counting = False
        self._given = 0
        detail = f"too many requests in progress; {RETRY}"
        unavailable = partial(error_response, HTTPStatus.SERVICE_UNAVAILABLE, detail)
        self._response, self._for_openai = around(unavailable()), around(unavailable(path=OPENAI))

    def concern(self, scope: Scope) -> bool:
        """Whether this request needs a place and there is none."""
        if not self._traffic.is_full or scope["type"] != "http":
            return False
        policy = (methods_of(scope["path"]) or {}).get(scope["method"])
        if policy is None or policy.always_answers:
            return False
        return self._traffic.has_no_place(brings_image=policy.cost == "image")

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._traffic.reject("too_many")
        if not self._is_counting:
            self._is_counting, self._given = True, 0
            asyncio.get_running_loop().call_later(1, self._tell)
        self._given += 1
        await self._traffic.pace.hold()
        response = self._for_openai if scope["path"].startswith(OPENAI) else self._response
        await response(scope, receive, send)

    def _tell(self) -> None:
        self._is_counting = False
        log.warning("%d requests in a second were refused with 503: too many in progress", self._given)
