"""Refuses requests to a name that is not this service's."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from clip_retrieval.access.addresses import without_port
from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.request_context import header

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""What machines ask by the address of a container. No page can read their answers, and they tell nothing of images."""


class HostCheck:
    """Answers 421 where the Host header is none of ``hosts``; with no ``hosts`` every name is served.

    A name of another site can be made to lead to an address of this network ("DNS rebinding"): the site's page then
    asks this service as its own origin. The Host header still has the site's name. ``*.example.org`` is every name
    below.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = [host.lower() for host in hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hosts and scope["path"] not in PROBES:
            given = header(scope, b"host").decode("latin-1")
            if not self._is_ours(given.lower()):
                detail = f"this service is not called {given or 'nothing'}; its names are those of BENTO_CLIP_HOSTS"
                await error_response(HTTPStatus.MISDIRECTED_REQUEST, detail)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, given: str) -> bool:
        name = without_port(given).removesuffix(".")
        for host in self._hosts:
            if host.startswith("*."):
                if (given if ":" in host else name).endswith(host[1:]):
                    return True
            elif host in {name, f"[{name}]", given}:
                return True
        return False
