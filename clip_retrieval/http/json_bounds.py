"""How much is in a JSON text, found without parsing it, and JSON that is parsed beside the event loop.

A parser makes an object of some 60 bytes for each value, and the validation an error of a kilobyte for each that is
wrong. Both are bounded by counting first: ten megabytes take a few milliseconds.
"""

import json
import re
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from clip_retrieval.serving.large_bodies import read_by_size

MAX_DEPTH = 64
"""Lists and objects inside each other; a request has six."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def has_more_values(body: bytes, most: int) -> bool:
    """Whether a JSON text has more than ``most`` members and elements together."""
    if body.count(b",") < most:  # those inside of texts count too
        return False
    return _STRING.sub(b"", body).count(b",") >= most


def is_deep(body: bytes, most_values: int) -> bool:
    """Whether lists and objects are more than ``MAX_DEPTH`` deep inside each other, in a text without more values."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in islice(_BRACKET.finditer(_STRING.sub(b"", body)), 4 * most_values):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def values_in(given: object, most: int) -> int:
    """How many values a parsed JSON value has inside; counting ends above ``most``."""
    count, left = 0, [given]
    while left and count <= most:
        one = left.pop()
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        count += len(inside)
        left.extend(islice(inside, most + 1))
    return count


class _JsonRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        return await read_by_size(len(body), partial(json.loads, body))


class JsonRoute(APIRoute):
    """A route whose body, if it is large, is parsed beside the event loop."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request.scope, request.receive))

        return handle
