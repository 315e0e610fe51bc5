"""How the server reads HTTP: uvicorn's httptools, with the API's own body for what cannot be read.

httptools parses in C: uvicorn with h11, which is Python, took 30 % of the event loop's time. What httptools cannot
parse never becomes a request, so that no middleware can give it the API's error body. Two things that h11 does and
httptools does not are added: a request's head is bounded; and a request of an unknown method, or one that offers to
change the protocol (``Upgrade: h2c``, which some clients always send), is answered like any other. h11 takes over the
connection for those.

This file uses these private names of uvicorn and httptools, and no other file uses any. Both packages have an upper
bound in pyproject.toml; tests/http/test_uvicorn_protocol.py holds each name and says what depends on it:

    uvicorn.config.HTTP_PROTOCOLS                         which protocol "auto" means
    HttpToolsProtocol._should_upgrade, _get_upgrade       offers to change the protocol
    HttpToolsProtocol.handle_websocket_upgrade            handing over a connection
    HttpToolsProtocol.send_400_response                   the body of a 400
    HttpToolsProtocol.cycle                               whether a request is in progress
    HttpToolsProtocol.connections, server_state, app_state, config, ws_protocol_class   what a successor needs
    H11Protocol.send_400_response                         likewise
    HttpParserUpgrade.args, HttpParserInvalidMethodError  how httptools stops at an upgrade or an unknown method
"""

import asyncio
import os
import sys
from http import HTTPStatus
from typing import Any

from httptools import HttpParserInvalidMethodError, HttpParserUpgrade
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.request_ids import new_id
from clip_retrieval.serving.settings import UVICORNS

HINT = "There is a mistake in its first line, in a header or in how its body is sent."

MAX_HEAD_BYTES = 16 * 1024
"""Bound of a request's first line and headers while their end has not come; h11 has the same."""


class _H11(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        _refuse(self.transport, msg)


class JsonErrorsProtocol(HttpToolsProtocol):
    """uvicorn's own protocol but for the body of its 400, the bound of a request's head, and offers to upgrade."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._received = b""
        self._in_head = False
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._received = data
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"The request's head is over the limit of {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are left out: they would become headers of a request in progress."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        """True hands the connection to h11: llhttp does not parse the body of a request with an Upgrade header."""
        if self._get_upgrade() is None:
            return False
        if not super()._should_upgrade():  # else it is a WebSocket, which uvicorn hands over itself
            self.ws_protocol_class = _H11
        return True

    def handle_websocket_upgrade(self) -> None:
        """Hand over the connection with the request's head, and to h11 also the bytes behind it."""
        stopped = sys.exc_info()[1]
        assert isinstance(stopped, HttpParserUpgrade)
        super().handle_websocket_upgrade()
        successor, rest = self.transport.get_protocol(), self._received[stopped.args[0] :]
        if rest and isinstance(successor, H11Protocol):
            successor.data_received(rest)

    def send_400_response(self, msg: str) -> None:
        """Answer and close: the beginning of a next request cannot be found."""
        if isinstance(sys.exc_info()[1], HttpParserInvalidMethodError) and self._head_bytes == 0 and self._is_idle():
            self._hand_over_to_h11()
            return
        _refuse(self.transport, msg)

    def _is_idle(self) -> bool:
        """Whether no request is in progress, so that the bytes just received begin with the next one."""
        return self.cycle is None or self.cycle.response_complete

    def _hand_over_to_h11(self) -> None:
        self.connections.discard(self)
        successor = _H11(self.config, self.server_state, self.app_state)
        successor.connection_made(self.transport)
        self.transport.set_protocol(successor)
        successor.data_received(self._received)


def use_in_this_process() -> None:
    """Make this uvicorn's default HTTP protocol; BentoML sets none.

    uvicorn believes every program of this machine, unless told otherwise, that it is a proxy: X-Forwarded-For would
    decide whom a limit counts. ``middleware/proxies.py`` decides instead.
    """
    os.environ[UVICORNS] = ""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{JsonErrorsProtocol.__name__}"


def _refuse(transport: asyncio.Transport, message: str) -> None:
    headers = {"Connection": "close", "X-Request-Id": new_id()}
    response = error_response(HTTPStatus.BAD_REQUEST, f"{message} {HINT}", headers)
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(response.body)))
    transport.close()
