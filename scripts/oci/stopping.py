"""Loads a service while it is stopped, and finds out which requests were answered, refused or lost.

A client sends the head of its request with ``Expect: 100-continue`` and its body only after ``100 Continue``, which
the server sends when the service begins to read the request (RFC 9110, section 10.1.1). So for each request:

    answered    a complete answer with status 200 came
    refused     no ``100 Continue`` came: the service never saw the request, and sending it again is safe
    lost        ``100 Continue`` came, and no complete answer with status 200
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

TIMEOUT_S = 60
PATH = "/search/images"

Fate = Literal["answered", "refused", "lost"]


@dataclass(frozen=True)
class Request:
    """``accepted`` and ``ended`` are times of the monotonic clock; ``accepted`` is None if it was refused."""

    fate: Fate
    accepted: float | None
    ended: float


@dataclass(frozen=True)
class Stopped:
    """What happened to the requests; ``in_flight`` had been accepted when the stop began and ended after it."""

    answered: int
    refused: int
    lost: int
    in_flight: int


def stop_under_load(url: str, stop: Callable[[], None], *, clients: int = 16, before_s: float = 3) -> Stopped:
    """Load the service, call ``stop`` after ``before_s`` seconds, and count; each client ends when it is refused."""
    requests: list[Request] = []

    def work(number: int) -> None:
        for turn in range(1_000_000):
            request = ask(url, f"client {number} asks for an image the {turn}th time")
            requests.append(request)
            if request.fate != "answered":
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(before_s)
    began = time.monotonic()
    stop()
    for thread in threads:
        thread.join()
    fates = [request.fate for request in requests]
    in_flight = sum(r.accepted is not None and r.accepted < began < r.ended for r in requests)
    return Stopped(fates.count("answered"), fates.count("refused"), fates.count("lost"), in_flight)


def ask(url: str, text: str) -> Request:
    """One search on a connection of its own."""
    address = urlsplit(url)
    body = json.dumps({"text": text, "k": 3}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    accepted: float | None = None
    try:
        with socket.create_connection((address.hostname or "", address.port or 80), TIMEOUT_S) as connection:
            connection.sendall(head.encode())
            if not _continues(connection):
                return Request("refused", None, time.monotonic())
            accepted = time.monotonic()
            connection.sendall(body)
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            complete = bool(response.read())  # raises IncompleteRead if the body is cut
            fate: Fate = "answered" if response.status == http.client.OK and complete else "lost"
    except (OSError, http.client.HTTPException):
        fate = "refused" if accepted is None else "lost"
    return Request(fate, accepted, time.monotonic())


def _continues(connection: socket.socket) -> bool:
    """Whether ``100 Continue`` comes; read byte by byte, so that the answer after it stays unread."""
    line = b""
    while not line.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return False
        line += byte
    return line.startswith(b"HTTP/1.1 100")
