"""Behind a proxy: who asks, by which name and scheme, and below which prefix of the path."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clip_retrieval.access.addresses import Network
from clip_retrieval.http.forwarded import Forwarded, read_forwarded

_PREFIX = "bento_clip.prefix"


class Proxies:
    """Puts what trusted proxies say in the place of what is seen of them; all that is inside reads the scope as usual.

    The path of the scope is without the prefix, whether or not the proxy takes it away; ``prefix_of`` has it. A
    ``Location`` that begins with a slash gets it.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network], root_path: str) -> None:
        self._app = app
        self._trusted = trusted
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = read_forwarded(scope, self._trusted) if self._trusted else Forwarded()
        _believe(scope, said)
        prefix = said.prefix or self._root_path
        if not prefix:
            await self._app(scope, receive, send)
            return
        scope[_PREFIX] = prefix
        if scope["path"] == prefix or scope["path"].startswith(f"{prefix}/"):
            scope["path"] = scope["path"].removeprefix(prefix) or "/"

        async def below(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("location", "").startswith("/"):
                    headers["location"] = prefix + headers["location"]
            await send(message)

        await self._app(scope, receive, below)


def _believe(scope: MutableMapping[str, Any], said: Forwarded) -> None:
    if said.client is not None:
        scope["client"] = (said.client, 0)
    if said.scheme is not None:
        scope["scheme"] = said.scheme
    if said.host is not None:
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", said.host.encode("latin-1"))]


def prefix_of(scope: Scope) -> str:
    """The prefix below which the client sees the service: ``/clip``, or nothing."""
    prefix: str = scope.get(_PREFIX, "")
    return prefix


class RootPath:
    """Gives the application the prefix as ASGI has it: as ``root_path``, with which ``path`` begins.

    Routes and links of FastAPI and Starlette are made from the two. It is the innermost of all that compares paths with
    the table of routes as they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (prefix := prefix_of(scope)):
            scope = {**scope, "root_path": prefix, "path": prefix + scope["path"]}
        await self._app(scope, receive, send)
