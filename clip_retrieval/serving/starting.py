"""What a service answers while no worker is ready: its port listens from the beginning, and nobody is refused.

The supervisor answers itself, on the socket that its workers get: 503 with ``Retry-After``, and ``/livez`` with 200. It
takes no more connections once a worker is ready, which takes them from the same socket, so that none is refused in
between. Each answer ends its connection, and the next one is a worker's. A client that has sent nothing yet by then
is answered here all the same.

It imports nothing of the HTTP server: the supervisor is to be small, and is to listen at once.
"""

import asyncio
import json
import os
import re
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from random import getrandbits
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

LIVES = frozenset({"/livez", "/healthz"})
"""What answers 200: the process lives."""
OPENAI = "/v1/"
"""Paths that OpenAI's clients ask, which read another form of an error."""
DETAIL = "the service is starting; retry after 1 s"
MAX_HEAD = 16 * 1024
HEAD_S = 10.0
"""Seconds in which the head of a request must come."""
DRAIN_S = 10.0
DRAIN_BYTES = 64 * 2**20
"""For so long, and up to so many bytes, the rest of a request is read and dropped after the answer: a connection that
is closed with bytes unread is reset, and the client may not get to see the answer (RFC 9112, section 9.6)."""
POLL_S = 0.02

_REQUEST = re.compile(rb"([!-~]+) (?:https?://[^/ ]*)?([!-~]+) HTTP/1\.[01]\r?\n")
_ID = re.compile(rb"(?im)^x-request-id:[ \t]*([A-Za-z0-9._:/+=@-]{1,128})[ \t]*\r?$")


async def answer_until(
    is_over: Callable[[], bool], listening: socket.socket, tls: "ssl.SSLContext | None" = None, most: int | None = None
) -> None:
    """Answer those who connect to ``listening``, which stays open, until ``is_over``.

    So many connections are taken at a time, by default half of the files that this process may open; others wait.
    """
    most = most or resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    loop = asyncio.get_running_loop()
    held: set[asyncio.Task[None]] = set()
    with socket.socket(fileno=os.dup(listening.fileno())) as doors:
        doors.setblocking(False)

        def take() -> None:
            with suppress(OSError):  # a worker was quicker, or the client has left
                while len(held) < most and not is_over():
                    task = loop.create_task(_serve(doors.accept()[0], tls))
                    held.add(task)
                    task.add_done_callback(held.discard)
            if len(held) >= most or is_over():
                loop.remove_reader(doors)

        try:
            while not is_over():
                if len(held) < most:
                    loop.add_reader(doors, take)
                await asyncio.sleep(POLL_S)
        finally:
            loop.remove_reader(doors)
    await asyncio.gather(*held)  # each ends by its own limits


def tls_of(options: Sequence[str]) -> "ssl.SSLContext | None":
    """What HTTPS is served with by these options of a worker; None for HTTP.

    A client is not asked for a certificate: an answer says nothing but that the service starts.
    """
    given = dict(pairwise(options))
    if "--ssl-certfile" not in given:
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given["--ssl-certfile"], given.get("--ssl-keyfile"), given.get("--ssl-keyfile-password"))
    return context


def answer(head: bytes) -> bytes:
    """The whole answer to the request that begins with ``head``, its first line and its headers."""
    request = _REQUEST.match(head)
    method, target = request.groups() if request else (b"GET", b"/")
    path = target.partition(b"?")[0].decode("ascii")
    named = _ID.search(head)
    lines = [f"x-request-id: {named[1].decode() if named else f'{getrandbits(128):032x}'}", "connection: close"]
    if path in LIVES and method in {b"GET", b"HEAD"}:
        status, body, kind = "200 OK", b"\n", "text/plain; charset=utf-8"
    else:
        status, body, kind = "503 Service Unavailable", _error(path), "application/json"
        lines += ["retry-after: 1", "cache-control: no-store"]
    lines = [f"HTTP/1.1 {status}", *lines, f"content-type: {kind}", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else body)


def _error(path: str) -> bytes:
    """The body that every answer of 503 has: see ``http/error_response.py``."""
    body: dict[str, Any] = {"error": "Service Unavailable", "detail": DETAIL}
    if path.startswith(OPENAI):
        error = {"message": DETAIL, "type": "server_error", "param": None, "code": "service_unavailable"}
        body = {"error": error}
    return json.dumps(body, separators=(",", ":")).encode()


async def _serve(connection: socket.socket, tls: "ssl.SSLContext | None") -> None:
    """Read a head, answer it and drop what else comes, within the limits."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    reader = asyncio.StreamReader(MAX_HEAD)
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=tls, ssl_handshake_timeout=None if tls is None else HEAD_S
        )
    except OSError:  # no TLS, or an end within its handshake
        connection.close()
        return
    try:
        if head := await _head(reader):
            transport.write(answer(head))
            if transport.can_write_eof():
                transport.write_eof()
            dropped = 0
            async with asyncio.timeout(DRAIN_S):
                while dropped < DRAIN_BYTES and (data := await reader.read(MAX_HEAD)):
                    dropped += len(data)
    except OSError:  # a time that is over, too; and a client that has left needs no answer
        return
    finally:
        transport.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """What has come of a head in its time; nothing if the client sent nothing."""
    head = bytearray()
    with suppress(TimeoutError):
        async with asyncio.timeout(HEAD_S):
            while b"\r\n\r\n" not in head and len(head) < MAX_HEAD and (data := await reader.read(MAX_HEAD)):
                head += data
    return bytes(head)
