"""How the server reads HTTP: uvicorn's httptools, with the API's own body for what cannot be read.

httptools parses in C: uvicorn with h11, which is Python, took 30 % of the event loop's time. What httptools cannot
parse never becomes a request, so that no middleware can give it the API's error body. Two things that h11 does and
httptools does not are added: a request's head is bounded; and a request of an unknown method, or one that offers to
change the protocol (``Upgrade: h2c``, which some clients always send), is answered like any other. h11 takes over the
connection for those.

A connection is not held by what does not come: the head of a request has a time limit, and so has the rest of a body
whose request is answered already. That rest is read and dropped, so that the client gets to see the answer; a client
that waits for ``100 Continue`` (RFC 9110, section 10.1.1) and is answered without it is not read from any more. A
client that does not read its answer loses it after the same time, and with it its place. There are so many connections
and no more.

This file uses these private names of uvicorn and httptools, and no other file uses any. Both packages have an upper
bound in pyproject.toml; tests/http/test_uvicorn_protocol.py holds each name and says what depends on it:

    uvicorn.config.HTTP_PROTOCOLS                         which protocol "auto" means
    HttpToolsProtocol._should_upgrade, _get_upgrade       offers to change the protocol
    HttpToolsProtocol.handle_websocket_upgrade            handing over a connection
    HttpToolsProtocol.send_400_response                   the body of a 400
    HttpToolsProtocol.cycle, H11Protocol.cycle            whether a request is in progress, and whether it is kept alive
    HttpToolsProtocol.timeout_keep_alive, expect_100_continue, app   likewise of H11Protocol but for the second
    HttpToolsProtocol.timeout_keep_alive_handler          the end of an idle connection, likewise of H11Protocol
    H11Protocol.conn                                      how far a request has come
    HttpToolsProtocol.connections, server_state, app_state, config, ws_protocol_class   what a successor needs
    H11Protocol.send_400_response                         likewise
    HttpParserUpgrade.args, HttpParserInvalidMethodError  how httptools stops at an upgrade or an unknown method
"""

import asyncio
import os
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from h11 import IDLE, SEND_BODY
from httptools import HttpParserInvalidMethodError, HttpParserUpgrade
from starlette.types import ASGIApp
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clip_retrieval.http.error_response import error_response
from clip_retrieval.http.middleware.request_ids import new_id
from clip_retrieval.serving.settings import UVICORNS

HINT = "There is a mistake in its first line, in a header or in how its body is sent."

MAX_HEAD_BYTES = 16 * 1024
"""Bound of a request's first line and headers while their end has not come; h11 has the same."""


DRAIN_BYTES = 64 * 2**20
"""How much of a body is read and dropped after the answer, as much as a client may be expected to send in vain."""

UVICORN_KEEP_ALIVE_S = 5
"""What uvicorn and BentoML take where nobody says otherwise."""


OTHER_FILES = 256
"""Files and sockets of a worker that are no connections, with room."""

MOST_CONNECTIONS = 8192


def most_connections() -> int:
    """How many connections the limit of open files leaves, at most ``MOST_CONNECTIONS``.

    Beyond the limit a connection can be neither accepted nor refused, and no file can be opened.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else limit - OTHER_FILES
    return max(1, min(most, MOST_CONNECTIONS))


@dataclass(frozen=True, slots=True)
class Wire:
    """How this process treats its connections."""

    keep_alive_s: float = 75
    """For how long an idle connection is kept, unless the server was started with another number."""
    patience_s: float = 10
    """How long the head of a request may take, the rest of a body after the answer, and a client that reads nothing."""
    max_connections: int = MOST_CONNECTIONS
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app
    """What is put around the whole application."""


class _Connection(asyncio.Protocol, ABC):
    """What both protocols have: the settings, and limits of time for what does not come and what is not read."""

    wire: ClassVar[Wire] = Wire()
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit_time(waits=False)
        self._limit_reader(waits=False)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_reader(waits=True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._limit_reader(waits=False)

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _set_up(self, keep_alive_s: float) -> float:
        """Begin without a time limit; returns for how long an idle connection is kept."""
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        return self.wire.keep_alive_s if keep_alive_s == UVICORN_KEEP_ALIVE_S else keep_alive_s

    def _limit_time(self, waits: bool) -> None:
        """End the connection in a while if it ``waits`` for the client, and not sooner for what came meanwhile."""
        if not waits and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif waits and self._timer is None:
            self._timer = self.loop.call_later(self.wire.patience_s, self._give_up)

    def _limit_reader(self, waits: bool) -> None:
        """End the connection in a while if the answer ``waits`` for the client to read what was sent."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        self._reader_timer = self.loop.call_later(self.wire.patience_s, self.transport.abort) if waits else None

    def _close(self) -> None:
        """Close the connection; what the client has not read by now is lost, or closing would wait for it."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self._is_within_head():
            detail = f"The request's head did not come within {self.wire.patience_s:g} seconds."
            _refuse(self.transport, detail, HTTPStatus.REQUEST_TIMEOUT)
        else:
            self._close()

    @abstractmethod
    def _is_within_head(self) -> bool:
        """Whether the head of a request has begun and not ended, and no other request is in progress."""


class _H11(_Connection, H11Protocol):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = self.wire.around(self.app)
        self.timeout_keep_alive = self._set_up(self.timeout_keep_alive)  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def send_400_response(self, msg: str) -> None:
        _refuse(self.transport, f"{msg} {HINT}")

    def _look(self) -> None:
        is_answered = self.cycle is None or self.cycle.response_complete
        body_goes_on = self.conn.their_state is SEND_BODY
        self._limit_time(waits=is_answered and (body_goes_on or self._is_within_head()))

    def _is_within_head(self) -> bool:
        return self.conn.their_state is IDLE and bool(self.conn.trailing_data[0])


class JsonErrorsProtocol(_Connection, HttpToolsProtocol):
    """uvicorn's own protocol but for the body of its 400, the bounds of what a request holds, and offers to upgrade."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = self.wire.around(self.app)
        self.timeout_keep_alive = self._set_up(self.timeout_keep_alive)  # type: ignore[assignment]
        self._received = b""
        self._in_head = False
        self._head_bytes = 0
        self._begun = 0
        """Requests that began in the bytes that were received last."""
        self._is_complete = True
        self._dropped_bytes = 0
        self._keeps_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.wire.max_connections:
            detail = "there are too many connections; retry after 1 s"
            _refuse(transport, detail, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._limit_time(waits=True)

    def data_received(self, data: bytes) -> None:
        self._received = data
        self._begun = 0
        goes_on = not (self._is_complete or self._in_head)
        super().data_received(data)
        # Where a head begins behind the end of another request, nobody knows how many of these bytes are its own.
        is_all_head = self._begun == 0 or (self._begun == 1 and not goes_on)
        if self._in_head and is_all_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                detail = f"The request's head is over the limit of {MAX_HEAD_BYTES} bytes."
                self.send_400_response(detail)
        drops = self._drops_body()
        if drops:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > DRAIN_BYTES:
                self.transport.close()
        self._limit_time(waits=drops or self._in_head)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun += 1
        self._in_head = True
        self._head_bytes = 0
        self._is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are left out: they would become headers of a request in progress."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._dropped_bytes = 0
        super().on_headers_complete()
        if self.expect_100_continue and self.cycle is not None:
            # If it is answered before its body, nobody knows whether a body or another request comes next.
            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_complete = True
        if self.expect_100_continue and self.cycle is not None:
            self.cycle.keep_alive = self._keeps_alive

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._drops_body():
            self._limit_time(waits=True)

    def shutdown(self) -> None:
        """Stop in a while even if the body of a request does not end."""
        self._keeps_alive = False
        super().shutdown()
        if not self._is_complete:
            self._limit_time(waits=True)

    def _drops_body(self) -> bool:
        """Whether a body goes on whose request is answered."""
        return not (self._is_complete or self._in_head) and self.cycle is not None and self.cycle.response_complete

    def _is_within_head(self) -> bool:
        return self._in_head and self._is_idle()

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
        self._limit_time(waits=False)
        self._limit_reader(waits=False)
        successor, rest = self.transport.get_protocol(), self._received[stopped.args[0] :]
        if rest and isinstance(successor, H11Protocol):
            successor.data_received(rest)

    def send_400_response(self, msg: str) -> None:
        """Answer and close: the beginning of a next request cannot be found."""
        if isinstance(sys.exc_info()[1], HttpParserInvalidMethodError) and self._head_bytes == 0 and self._is_idle():
            self._hand_over_to_h11()
            return
        _refuse(self.transport, f"{msg} {HINT}")

    def _is_idle(self) -> bool:
        """Whether no request is in progress, so that the bytes just received begin with the next one."""
        return self.cycle is None or self.cycle.response_complete

    def _hand_over_to_h11(self) -> None:
        self.connections.discard(self)
        self._limit_time(waits=False)
        self._limit_reader(waits=False)
        successor = _H11(self.config, self.server_state, self.app_state)
        successor.connection_made(self.transport)
        self.transport.set_protocol(successor)
        successor.data_received(self._received)


def use_in_this_process(wire: Wire) -> None:
    """Make this uvicorn's default HTTP protocol; BentoML sets none.

    uvicorn believes every program of this machine, unless told otherwise, that it is a proxy: X-Forwarded-For would
    decide whom a limit counts. ``middleware/proxies.py`` decides instead.
    """
    os.environ[UVICORNS] = ""
    _Connection.wire = wire
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{JsonErrorsProtocol.__name__}"


def _refuse(transport: asyncio.Transport, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
    response = error_response(status, message, {"Connection": "close", "X-Request-Id": new_id()})
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    line = f"HTTP/1.1 {status} {status.phrase}\r\n".encode()
    transport.write(b"%b%b\r\n%b" % (line, head, bytes(response.body)))
    transport.close()
